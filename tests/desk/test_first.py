from rowledger.desk import create_app
def test_pages(client, post, work, connection):
    r = post(); print(r.status_code, r.text[:600], r.headers); assert r.status_code==201
    work(1)
    for u in ["/", "/?group=status","/?group=origin","/?group=day&q=con", "/new","/batches/1","/batches/1/head","/batches/1/records","/batches/1/errors","/batches/1/expectations","/batches/1/activity","/static/desk.css","/static/htmx.min.js","/changes?seen=1-000000000000&newest=0","/api/v1/batches","/api/v1/batches/1","/api/v1/batches/1/records","/api/v1/batches/1/errors","/api/v1/batches/1/rejects.csv","/api/v1/batches/1/outcomes.csv","/api/v1/batches/1/file","/api/v1/batches/1/events","/api/v1/batches/totals?group=kind","/api/v1/openapi.json"]:
        r = client.get(u); print(u, r.status_code, len(r.text), r.text[:300] if "api" in u or r.status_code!=200 else "")
        assert r.status_code==200
