-- Every kind of thing that a copy of rows would fire or be refused by, and that has to be the same
-- afterwards. Run as the owner, beside the store.
CREATE SCHEMA shelf;

CREATE FUNCTION shelf.pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
-- Were it fired by the copy, no row would arrive.
CREATE FUNCTION shelf.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'fired'; END $$;

CREATE TABLE shelf."Odd parent" (
    id int PRIMARY KEY,
    above int CONSTRAINT "of self" REFERENCES shelf."Odd parent" DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO shelf."Odd parent" SELECT n, nullif(n / 2, 0) FROM generate_series(1, 500) AS n;
COMMENT ON CONSTRAINT "of self" ON shelf."Odd parent" IS 'it''s above';

CREATE TABLE shelf.late (id int PRIMARY KEY, parent int, amount int);
INSERT INTO shelf.late SELECT n, n * 10, -n FROM generate_series(1, 300) AS n;
-- Older rows break both, and a stream of newer ones does not.
ALTER TABLE shelf.late ADD CONSTRAINT late_parent FOREIGN KEY (parent)
    REFERENCES shelf."Odd parent" ON UPDATE CASCADE NOT VALID;
ALTER TABLE shelf.late ADD CONSTRAINT late_amount CHECK (amount > 0) NOT VALID;
COMMENT ON CONSTRAINT late_amount ON shelf.late IS 'from now on';

CREATE TABLE shelf.split (
    id int, at date, parent int REFERENCES shelf."Odd parent", PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE shelf.split_2025 PARTITION OF shelf.split FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE shelf.split_2026 PARTITION OF shelf.split FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO shelf.split SELECT n, date '2025-06-01' + n, n FROM generate_series(1, 400) AS n;
-- Points to a partitioned table.
CREATE TABLE shelf.leaf (id int PRIMARY KEY, at date,
    CONSTRAINT leaf_split FOREIGN KEY (id, at) REFERENCES shelf.split);
INSERT INTO shelf.leaf SELECT id, at FROM shelf.split;

CREATE TRIGGER "on split" BEFORE INSERT OR UPDATE ON shelf.split
    FOR EACH ROW EXECUTE FUNCTION shelf.pass();
COMMENT ON TRIGGER "on split" ON shelf.split IS 'on each partition';
CREATE TRIGGER switched_off BEFORE INSERT ON shelf.leaf FOR EACH ROW EXECUTE FUNCTION shelf.refuse();
ALTER TABLE shelf.leaf DISABLE TRIGGER switched_off;
CREATE TRIGGER always BEFORE INSERT ON shelf.leaf FOR EACH ROW EXECUTE FUNCTION shelf.pass();
ALTER TABLE shelf.leaf ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER as_replica BEFORE INSERT ON shelf.leaf FOR EACH ROW EXECUTE FUNCTION shelf.pass();
ALTER TABLE shelf.leaf ENABLE REPLICA TRIGGER as_replica;
CREATE TRIGGER refusing BEFORE INSERT OR TRUNCATE ON shelf.late
    FOR EACH STATEMENT EXECUTE FUNCTION shelf.refuse();
CREATE CONSTRAINT TRIGGER checked AFTER INSERT ON shelf.late DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.amount > 5) EXECUTE FUNCTION shelf.pass();
CREATE RULE kept AS ON DELETE TO shelf.late DO INSTEAD NOTHING;

CREATE MATERIALIZED VIEW shelf.counted AS SELECT count(*) AS n FROM shelf.late;
CREATE UNIQUE INDEX ON shelf.counted (n);
CREATE MATERIALIZED VIEW shelf.unfilled AS SELECT id FROM shelf.late WITH NO DATA;
