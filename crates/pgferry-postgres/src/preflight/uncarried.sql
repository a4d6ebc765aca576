-- What no replication set carries, although the database holds it.
SELECT (SELECT count(*) FROM (SELECT FROM pg_catalog.pg_largeobject_metadata LIMIT 1000) AS l)
           AS large_objects,
       -- Those that this role may not read: a superuser reads all, and so does everybody where the
       -- server keeps to what was before 9.0.
       (SELECT count(*)
        FROM (SELECT FROM pg_catalog.pg_largeobject_metadata AS m
              WHERE NOT pg_catalog.current_setting('lo_compat_privileges')::boolean
                AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.aclexplode(
                        coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) AS a
                    WHERE a.privilege_type = 'SELECT'
                      AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
              LIMIT 1000) AS r) AS large_objects_refused,
       ARRAY(SELECT DISTINCT pg_catalog.pg_get_userbyid(m.lomowner)::text
             FROM pg_catalog.pg_largeobject_metadata AS m
             ORDER BY 1) AS large_object_owners,
       ARRAY(SELECT e.evtname::text
             FROM pg_catalog.pg_event_trigger AS e
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                               WHERE d.classid = 'pg_catalog.pg_event_trigger'::regclass
                                 AND d.objid = e.oid AND d.deptype = 'e')
             ORDER BY 1) AS event_triggers,
       ARRAY(SELECT s.subname::text
             FROM pg_catalog.pg_subscription AS s
             WHERE s.subenabled
               AND s.subdbid = (SELECT oid FROM pg_catalog.pg_database
                                WHERE datname = pg_catalog.current_database())
             ORDER BY 1) AS subscriptions
