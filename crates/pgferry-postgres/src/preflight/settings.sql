-- Server settings that the road depends on. A setting that this role may not see, or that this
-- version does not have, has no row; shared_preload_libraries exists everywhere, so its row also
-- tells whether hidden settings can be seen.
SELECT name::text, setting::text AS value
FROM pg_catalog.pg_settings
WHERE name IN ('wal_level', 'shared_preload_libraries', 'output_plugin_libraries',
               'max_replication_slots', 'max_wal_senders', 'max_worker_processes',
               'max_locks_per_transaction', 'max_connections', 'max_prepared_transactions',
               'max_active_replication_origins', 'max_slot_wal_keep_size',
               'pglogical.conflict_resolution')
