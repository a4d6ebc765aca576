-- Which tables are in which of the named replication sets of the local node.
-- A set row whose table is gone (set_reloid of a dropped table) joins nothing and is left out.
--
-- $1 text[]: names of sets
SELECT n.nspname::text AS table_schema, c.relname::text AS table_name, s.set_name::text AS set_name
FROM pglogical.local_node AS l
JOIN pglogical.replication_set AS s ON s.set_nodeid = l.node_id
JOIN pglogical.replication_set_table AS t ON t.set_id = s.set_id
JOIN pg_catalog.pg_class AS c ON c.oid = t.set_reloid::oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE s.set_name = ANY ($1::text[])
