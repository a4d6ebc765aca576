-- What no replication set carries, although the schema holds it.
SELECT (SELECT count(*) FROM (SELECT FROM pg_catalog.pg_largeobject_metadata LIMIT 1000) AS l)
           AS large_objects,
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
