-- Every login role that is neither superuser nor ours: may it change rows in this database, is it
-- read-only by default, and may the looking role change that?
--
-- Deliberately too wide rather than too narrow, because a writer that is not fenced loses writes
-- and a reader that is fenced loses nothing: USAGE on the schema is not asked for, except where a
-- function is executable by PUBLIC, which is PostgreSQL's default and would name every role.
-- A grant counts when it is the role's own, PUBLIC's, or of a role that it is a member of, NOINHERIT
-- included, since SET ROLE reaches it. From PostgreSQL 16 a membership may carry neither INHERIT
-- nor SET (only ADMIN): then it does not count, as CREATEROLE itself never did before.
-- CREATE on a schema or on the database counts: a new table takes writes, and is in no set.
-- Not counted: sequences alone (the headroom covers them), large objects (they are not streamed),
-- foreign tables (their rows are elsewhere), superusers' functions in system or extension schemas.
--
-- {membership} is MEMBER below PostgreSQL 16, and USAGE, SET from 16 on.
-- $1 text[]: names of our own roles
-- $2 text[]: names of roles that the fence has locked out, which may log in when it is lifted
-- $3 boolean: whether to look for what the roles own and are granted in other databases
WITH user_schema AS MATERIALIZED (
    SELECT n.oid, n.nspowner, n.nspacl
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_namespace'::regclass
                        AND d.objid = n.oid AND d.deptype = 'e')
),
relation AS MATERIALIZED (
    SELECT c.oid, c.relowner, c.relacl
    FROM pg_catalog.pg_class AS c
    JOIN user_schema AS s ON s.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm')
      AND c.relpersistence <> 't'
      AND c.oid NOT IN (SELECT d.objid FROM pg_catalog.pg_depend AS d
                        WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass
                          AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_class'::regclass)
),
-- grantee 0 is PUBLIC
writer AS MATERIALIZED (
    SELECT relowner AS grantee, 'ownership' AS access FROM relation
    UNION
    SELECT acl.grantee, 'grant'
    FROM relation, pg_catalog.aclexplode(relation.relacl) AS acl
    WHERE acl.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
    UNION
    SELECT acl.grantee, 'grant'
    FROM relation
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = relation.oid
    CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) AS acl
    WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
      AND acl.privilege_type IN ('INSERT', 'UPDATE')
    UNION
    SELECT oid, 'write_all_data' FROM pg_catalog.pg_roles WHERE rolname = 'pg_write_all_data'
    UNION
    SELECT acl.grantee, 'create'
    FROM user_schema AS s,
         pg_catalog.aclexplode(coalesce(s.nspacl, pg_catalog.acldefault('n', s.nspowner))) AS acl
    WHERE acl.privilege_type = 'CREATE'
    UNION
    SELECT acl.grantee, 'create'
    FROM pg_catalog.pg_database AS d,
         pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS acl
    WHERE d.datname = pg_catalog.current_database() AND acl.privilege_type = 'CREATE'
),
definer AS MATERIALIZED (
    SELECT DISTINCT p.proowner,
           execute_acl.grantee AS may_execute,
           usage_acl.grantee AS may_use_schema
    FROM pg_catalog.pg_proc AS p
    JOIN user_schema AS s ON s.oid = p.pronamespace
    CROSS JOIN LATERAL pg_catalog.aclexplode(
        coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS execute_acl
    CROSS JOIN LATERAL pg_catalog.aclexplode(
        coalesce(s.nspacl, pg_catalog.acldefault('n', s.nspowner))) AS usage_acl
    WHERE p.prosecdef
      AND p.prorettype NOT IN ('pg_catalog.trigger'::regtype, 'pg_catalog.event_trigger'::regtype)
      AND execute_acl.privilege_type = 'EXECUTE'
      AND usage_acl.privilege_type = 'USAGE'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass
                        AND d.objid = p.oid AND d.deptype = 'e')
),
definer_that_writes AS MATERIALIZED (
    SELECT DISTINCT may_execute, may_use_schema
    FROM definer AS f
    JOIN pg_catalog.pg_roles AS o ON o.oid = f.proowner
    WHERE o.rolsuper
       OR EXISTS (SELECT FROM writer AS w
                  WHERE w.grantee = 0 OR pg_catalog.pg_has_role(o.oid, w.grantee, '{membership}'))
),
setting AS MATERIALIZED (
    SELECT s.setrole, s.setdatabase, pg_catalog.split_part(entry, '=', 2) AS value
    FROM pg_catalog.pg_db_role_setting AS s, unnest(s.setconfig) AS entry
    WHERE pg_catalog.split_part(entry, '=', 1) = 'default_transaction_read_only'
),
session AS MATERIALIZED (
    SELECT usesysid, datname, count(*) AS sessions
    FROM pg_catalog.pg_stat_activity
    WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND backend_type = 'client backend'
    GROUP BY usesysid, datname
),
-- A role of this database alone is in none of these; CONNECT through PUBLIC is no use yet.
elsewhere AS MATERIALIZED (
    SELECT s.usesysid AS role, s.datname FROM session AS s
    UNION
    SELECT s.setrole, d.datname
    FROM pg_catalog.pg_db_role_setting AS s
    JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
    WHERE s.setrole <> 0
    UNION
    SELECT s.refobjid, d.datname
    FROM pg_catalog.pg_shdepend AS s
    JOIN pg_catalog.pg_database AS d
      ON d.oid = CASE WHEN s.dbid <> 0 THEN s.dbid
                      WHEN s.classid = 'pg_catalog.pg_database'::regclass THEN s.objid END
    WHERE $3
      AND s.refclassid = 'pg_catalog.pg_authid'::regclass
      AND s.dbid <> (SELECT oid FROM pg_catalog.pg_database
                     WHERE datname = pg_catalog.current_database())
)
SELECT r.rolname::text AS name,
       pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT') AS may_connect,
       ARRAY(SELECT DISTINCT w.access
             FROM writer AS w
             WHERE w.grantee = 0 OR pg_catalog.pg_has_role(r.oid, w.grantee, '{membership}')
             UNION
             SELECT 'security_definer'
             FROM definer_that_writes AS f
             WHERE (f.may_execute = 0 OR pg_catalog.pg_has_role(r.oid, f.may_execute, '{membership}'))
               AND (f.may_use_schema = 0
                    OR pg_catalog.pg_has_role(r.oid, f.may_use_schema, '{membership}'))
             ORDER BY 1) AS writes,
       (SELECT s.value FROM setting AS s
        WHERE s.setrole = r.oid
          AND s.setdatabase = (SELECT oid FROM pg_catalog.pg_database
                               WHERE datname = pg_catalog.current_database())) AS read_only_here,
       (SELECT s.value FROM setting AS s
        WHERE s.setrole = r.oid AND s.setdatabase = 0) AS read_only_everywhere,
       -- What ALTER ROLE … SET asks for; a role may also set its own.
       me.rolsuper
       OR r.oid = me.oid
       OR (me.rolcreaterole
           AND (pg_catalog.current_setting('server_version_num')::int < 160000
                OR pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION'))) AS alterable,
       -- What ALTER ROLE … NOLOGIN asks for.
       me.rolsuper
       OR (me.rolcreaterole
           AND CASE WHEN pg_catalog.current_setting('server_version_num')::int < 160000
                    THEN NOT r.rolreplication
                    ELSE pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION')
               END) AS login_alterable,
       coalesce((SELECT s.sessions FROM session AS s
                 WHERE s.usesysid = r.oid
                   AND s.datname = pg_catalog.current_database()), 0)::bigint AS sessions,
       ARRAY(SELECT e.datname::text FROM elsewhere AS e
             WHERE e.role = r.oid AND e.datname <> pg_catalog.current_database()
             ORDER BY 1) AS other_databases
FROM pg_catalog.pg_roles AS r
CROSS JOIN (SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user) AS me
WHERE (r.rolcanlogin OR r.rolname = ANY ($2::text[])) AND NOT r.rolsuper AND r.rolname <> ALL ($1::text[])
ORDER BY r.rolname
