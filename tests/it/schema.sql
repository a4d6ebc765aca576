-- A view, materialized views and functions that need a primary key, and what hangs on them.
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL, place bigint);
CREATE TABLE purchase (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int NOT NULL REFERENCES customer,
    amount numeric NOT NULL,
    -- PostgreSQL prints this in other words once it is restored.
    status varchar(10) NOT NULL CHECK (status IN ('open', 'paid'))
);
CREATE INDEX purchase_open ON purchase (customer) WHERE status IN ('open', 'late');
CREATE INDEX customer_name ON customer USING gin (name gin_trgm_ops);
COMMENT ON INDEX customer_name IS 'found by likeness';
COMMENT ON CONSTRAINT purchase_status_check ON purchase IS 'two are enough';
INSERT INTO customer (id, name) SELECT n, 'customer ' || n FROM generate_series(1, 5) AS n;
INSERT INTO purchase (customer, amount, status)
    SELECT 1 + n % 5, n, CASE WHEN n % 3 = 0 THEN 'open' ELSE 'paid' END
    FROM generate_series(1, 50) AS n;
ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone ON customer FOR SELECT TO app, pgferry USING (name <> '');
COMMENT ON POLICY everyone ON customer IS 'open to all';

CREATE VIEW spent AS
    SELECT c.id, c.name, sum(p.amount) AS total
    FROM customer AS c JOIN purchase AS p ON p.customer = c.id GROUP BY c.id;
COMMENT ON VIEW spent IS 'by customer';
COMMENT ON COLUMN spent.total IS 'of everything';
GRANT SELECT ON spent TO app;
CREATE VIEW big_spenders AS SELECT id, total FROM spent WHERE total > 100;
CREATE VIEW open_orders AS SELECT id FROM purchase WHERE status IN ('open', 'late');

CREATE MATERIALIZED VIEW spent_kept AS
    SELECT c.id, c.name, sum(p.amount) AS total
    FROM customer AS c JOIN purchase AS p ON p.customer = c.id GROUP BY c.id;
CREATE UNIQUE INDEX spent_kept_id ON spent_kept (id);
COMMENT ON MATERIALIZED VIEW spent_kept IS 'as of the last refresh';
COMMENT ON INDEX spent_kept_id IS 'for a concurrent refresh';
GRANT SELECT ON spent_kept TO app;

CREATE FUNCTION named(lowest int) RETURNS TABLE (id int, name text) LANGUAGE sql
BEGIN ATOMIC
    SELECT c.id, c.name FROM customer AS c WHERE c.id >= lowest GROUP BY c.id;
END;
COMMENT ON FUNCTION named(int) IS 'from a number on';
REVOKE ALL ON FUNCTION named(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION named(int) TO app;
CREATE VIEW over_named AS SELECT id, name FROM named(3);
CREATE FUNCTION next_place() RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    SELECT 1 + count(*) FROM (SELECT c.id, c.name FROM customer AS c GROUP BY c.id) AS placed;
END;
-- The table needs the function, which needs the table's key: the default is postponed too.
ALTER TABLE customer ALTER COLUMN place SET DEFAULT next_place();
-- Made last, or what is postponed would get this grant on top of its own.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;

CREATE FUNCTION see_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
