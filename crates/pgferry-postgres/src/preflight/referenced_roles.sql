-- Roles that the schema to be copied names: owners, grantees, subjects of policies. The
-- bootstrap superuser is pinned and has no entry in pg_shdepend, so owners are also read where
-- they stand. Objects without a schema (casts, languages, foreign servers) count in every scope.
--
-- $1 text[]: schemas in scope, NULL for all
WITH user_schema AS MATERIALIZED (
    SELECT n.oid, n.nspname, n.nspowner
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
      AND ($1::text[] IS NULL OR n.nspname = ANY ($1))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_namespace'::regclass
                        AND d.objid = n.oid AND d.deptype = 'e')
),
reference AS (
    SELECT s.refobjid AS role_oid, s.classid, s.objid,
           -- Whether our role may act for an owner of large objects is a look of its own.
           s.deptype = 'o' AND s.classid <> 'pg_catalog.pg_largeobject'::regclass AS owns,
           CASE s.classid
               WHEN 'pg_catalog.pg_class'::regclass
                   THEN (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = s.objid)
               WHEN 'pg_catalog.pg_proc'::regclass
                   THEN (SELECT pronamespace FROM pg_catalog.pg_proc WHERE oid = s.objid)
               WHEN 'pg_catalog.pg_type'::regclass
                   THEN (SELECT typnamespace FROM pg_catalog.pg_type WHERE oid = s.objid)
               WHEN 'pg_catalog.pg_namespace'::regclass THEN s.objid
               WHEN 'pg_catalog.pg_policy'::regclass
                   THEN (SELECT c.relnamespace FROM pg_catalog.pg_policy AS p
                         JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
                         WHERE p.oid = s.objid)
           END AS namespace
    FROM pg_catalog.pg_shdepend AS s
    WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass
      AND s.dbid = (SELECT oid FROM pg_catalog.pg_database
                    WHERE datname = pg_catalog.current_database())
      AND s.classid <> 'pg_catalog.pg_extension'::regclass
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = s.classid AND d.objid = s.objid AND d.deptype = 'e')
),
named AS (
    SELECT role_oid, owns
    FROM reference
    WHERE namespace IS NULL OR namespace IN (SELECT oid FROM user_schema)
    UNION ALL
    SELECT c.relowner, true
    FROM pg_catalog.pg_class AS c
    JOIN user_schema AS s ON s.oid = c.relnamespace
    WHERE c.relowner = 10
      AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
    UNION ALL
    SELECT p.proowner, true
    FROM pg_catalog.pg_proc AS p
    JOIN user_schema AS s ON s.oid = p.pronamespace
    WHERE p.proowner = 10
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass
                        AND d.objid = p.oid AND d.deptype = 'e')
    UNION ALL
    -- public belongs to the bootstrap superuser or to pg_database_owner in every new database.
    SELECT s.nspowner, true FROM user_schema AS s WHERE s.nspowner = 10 AND s.nspname <> 'public'
)
SELECT r.rolname::text AS name, pg_catalog.bool_or(n.owns) AS owns
FROM named AS n
JOIN pg_catalog.pg_roles AS r ON r.oid = n.role_oid
WHERE r.rolname !~ '^pg_'
GROUP BY r.rolname
ORDER BY r.rolname
