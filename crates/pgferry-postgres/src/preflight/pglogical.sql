-- What the extension's schema lets the looking role and everybody do; no row without the schema.
SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usage,
       EXISTS (SELECT FROM pg_catalog.aclexplode(
                   coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS acl
               WHERE acl.grantee = 0 AND acl.privilege_type = 'USAGE') AS usage_for_everybody,
       EXISTS (SELECT FROM pg_catalog.pg_proc AS p,
                    pg_catalog.aclexplode(
                        coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS acl
               WHERE p.pronamespace = n.oid AND p.proname = 'create_subscription'
                 AND acl.grantee = 0 AND acl.privilege_type = 'EXECUTE') AS execute_for_everybody,
       ARRAY(SELECT p.proname::text
             FROM pg_catalog.pg_proc AS p
             WHERE p.pronamespace = n.oid
               AND p.proname IN (
                   'create_node', 'drop_node', 'create_replication_set', 'drop_replication_set',
                   'replication_set_add_table', 'replication_set_remove_table',
                   'create_subscription', 'drop_subscription', 'alter_subscription_enable',
                   'alter_subscription_disable', 'alter_subscription_add_replication_set',
                   'alter_subscription_remove_replication_set', 'show_subscription_status',
                   'pglogical_gen_slot_name')
               AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
             ORDER BY 1) AS functions_refused,
       ARRAY(SELECT c.relname::text
             FROM pg_catalog.pg_class AS c
             WHERE c.relnamespace = n.oid
               AND c.relname IN (
                   'node', 'node_interface', 'local_node', 'subscription', 'local_sync_status',
                   'replication_set', 'replication_set_table')
               AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
             ORDER BY 1) AS tables_refused,
       EXISTS (SELECT FROM pg_catalog.pg_class AS c
               WHERE c.relnamespace = n.oid AND c.relname = 'local_sync_status'
                 AND pg_catalog.has_column_privilege(c.oid, 'sync_status', 'UPDATE'))
           AS may_mark_initialised
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname = 'pglogical'
