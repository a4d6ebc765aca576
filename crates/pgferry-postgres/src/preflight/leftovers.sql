-- What an earlier run left outside pglogical's own tables: the schema, slots of this database,
-- origins named after it. Origins belong to the server and carry only a name: pgl_<database>_…,
-- the database shortened to 16 characters (8 and 7 hexadecimal digits when longer). A longer
-- database name that matches as well is the likelier owner, so its origins are not listed.
WITH prefix AS (
    SELECT d.datname = pg_catalog.current_database() AS here,
           pg_catalog.regexp_replace(
               CASE WHEN length(d.datname::text) <= 16 THEN d.datname::text
                    ELSE substr(d.datname::text, 1, 8) END, '[^a-z0-9_]', '_', 'g') AS name,
           CASE WHEN length(d.datname::text) <= 16 THEN '_' ELSE '[0-9a-f]{7}_' END AS rest
    FROM pg_catalog.pg_database AS d
)
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'pgferry') AS pgferry_schema,
       ARRAY(SELECT s.slot_name::text
             FROM pg_catalog.pg_replication_slots AS s
             WHERE s.database = pg_catalog.current_database()
               AND s.plugin IN ('pglogical_output', 'pglogical')
             ORDER BY 1) AS slots,
       ARRAY(SELECT o.roname::text
             FROM pg_catalog.pg_replication_origin AS o
             JOIN prefix AS p ON p.here
             WHERE o.roname ~ ('^pgl_' || p.name || p.rest)
               AND NOT EXISTS (SELECT FROM prefix AS other
                               WHERE NOT other.here
                                 AND length(other.name || other.rest) > length(p.name || p.rest)
                                 AND o.roname ~ ('^pgl_' || other.name || other.rest))
             ORDER BY 1) AS origins
