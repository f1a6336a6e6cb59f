-- name: all
SELECT domain_id, code, retired FROM domain ORDER BY code
