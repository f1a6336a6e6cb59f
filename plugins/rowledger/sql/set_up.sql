-- name: domains
SELECT code, name, retired,
       (SELECT count(*) FROM contract_phase AS p WHERE p.domain_id = domain.domain_id AND NOT p.retired) AS phases,
       (SELECT count(*) FROM contract_status AS s WHERE s.domain_id = domain.domain_id AND NOT s.retired) AS statuses,
       (SELECT count(*) FROM origin AS o WHERE o.domain_id = domain.domain_id AND active) AS origins,
       (SELECT count(*) FROM subscription AS s WHERE s.domain_id = domain.domain_id AND NOT disabled) AS subscriptions
FROM domain
ORDER BY code

-- name: lists
SELECT list_name, count(*)::integer AS values FROM reference_value GROUP BY list_name ORDER BY list_name

-- name: values
SELECT value FROM reference_value
WHERE list_name = %(list_name)s AND value > %(after)s AND starts_with(lower(value), lower(%(begins)s))
ORDER BY value
LIMIT %(limit)s
