//! Carrying out: one action, one guarded mutation or one background job.
//!
//! Each arm is short, idempotent, and believed by nobody: the next look says what it did.

mod aside;
mod copying;
mod count;
mod jobs;
mod large_objects;
mod subscribing;

use pgferry_engine::Fault;
use pgferry_plan::{Action, Blocker, Course, Direction, Facts, Side};

use crate::cluster::PgCluster;
use crate::migrate::migrate_node;
use crate::node::{LookError, is_missing};
use crate::statements::{self, Guard};

impl PgCluster {
    pub(crate) async fn carry_out(&self, action: &Action, facts: &Facts) -> Result<(), Fault> {
        let guard = Guard::of_epoch(facts.epoch);
        let seen = |revision: &i64| Guard::of_record(facts.epoch, *revision);
        let name = &self.config.name;
        match action {
            Action::Install { side, node_id, creates_extension } => {
                self.install(*side, *node_id, *creates_extension, facts.epoch).await
            }
            Action::Fence { side, revision, roles, lock_out } => {
                let node = self.node(*side);
                let sql = statements::fence(node.database(), roles, lock_out);
                node.mutate(seen(revision), &sql).await
            }
            Action::EndSessions { side, sessions } => {
                self.node(*side).mutate(guard, &statements::end_sessions(sessions)).await
            }
            Action::CompareStrays { active, strays } => {
                self.compare_strays(*active, strays, facts.epoch);
                Ok(())
            }
            Action::CreateNode { side } => {
                let conninfo = self.own_conninfo(*side);
                let sql = statements::create_node(&name.node(*side), conninfo.expose());
                self.node(*side).mutate(guard, &sql).await
            }
            Action::CreateSubscription { direction, on_empty_set } => {
                let sets = if *on_empty_set {
                    vec![name.empty_set()]
                } else {
                    vec![name.set(), name.insert_only_set()]
                };
                self.create_subscription(*direction, &sets, guard).await
            }
            Action::CreateCopyingSubscription => {
                let conninfo = self.peer_conninfo(Side::Source);
                let sql = statements::create_copying_subscription(
                    &name.subscription(Direction::Forward),
                    conninfo.expose(),
                    &[name.set(), name.insert_only_set()],
                    self.has_oid_columns().await?,
                );
                self.on_subscriber(Direction::Forward, guard, &sql).await
            }
            Action::DisableSubscription { direction } => {
                let sql = statements::disable_subscription(&name.subscription(*direction));
                self.on_subscriber(*direction, guard, &sql).await
            }
            Action::EnableSubscription { direction } => {
                let sql = statements::enable_subscription(&name.subscription(*direction));
                self.on_subscriber(*direction, guard, &sql).await
            }
            Action::WakeSubscription { direction } => {
                let sql = statements::wake_subscription(&name.subscription(*direction));
                self.on_subscriber(*direction, guard, &sql).await
            }
            Action::SwapSets { direction } => {
                let sql = statements::swap_sets(&name.subscription(*direction), name);
                self.on_subscriber(*direction, guard, &sql).await
            }
            Action::AdvanceSlot { direction, to } => {
                let slot = self.slot_name(*direction).await?;
                let sql = statements::advance_slot(&slot, *to);
                self.node(direction.from()).mutate(guard, &sql).await
            }
            Action::StartStream { direction, at_lsn } => {
                // Held any longer it would hold vacuum back on the source for nothing.
                self.release_snapshots(None).await.map_err(Fault::Failed)?;
                self.start_stream(*direction, *at_lsn, guard).await
            }
            Action::Verify { run, active } => {
                let at_rest = facts.course == Course::AtRest;
                let repair = facts.repair.as_ref().is_some_and(|repair| repair.operation == *run);
                self.verify(*run, *active, facts.epoch, at_rest, repair).await;
                Ok(())
            }
            Action::Repair { begin, told } => {
                self.verifier.repairs.go_on(begin, told);
                Ok(())
            }
            Action::StopVerification => {
                self.stop_verification().await;
                Ok(())
            }
            Action::VerifyInBackground { run, active, keep } => {
                self.verify_in_background(*run, *active, facts.epoch, *keep).await;
                Ok(())
            }
            Action::GiveUpBackground => {
                self.give_up_background().await;
                Ok(())
            }
            Action::WriteMarker { side, token } => {
                self.node(*side).mutate(guard, &statements::write_marker(*side, *token)).await
            }
            Action::SetSequences { side, revision, values } => {
                self.node(*side).mutate(seen(revision), &statements::set_sequences(values)).await
            }
            Action::RaiseSequences { side, revision, values } => {
                self.node(*side).mutate(seen(revision), &statements::set_sequences(values)).await
            }
            Action::Yield { side, revision } => {
                self.node(*side).mutate(seen(revision), statements::YIELD).await
            }
            Action::Open { side, revision, after_marker } => {
                let guard = seen(revision).after_marker(*after_marker);
                self.node(*side).mutate(guard, statements::OPEN).await
            }
            Action::DropSubscription { direction } => {
                // The snapshot is the source's, and went with it.
                if facts.lost != Some(Side::Source) {
                    self.release_snapshots(None).await.map_err(Fault::Failed)?;
                }
                let sql = statements::drop_subscription(&name.subscription(*direction));
                self.on_subscriber(*direction, guard, &sql).await
            }
            Action::EndReader { side, slot, pid } => {
                self.node(*side).mutate(guard, &statements::end_reader(slot, *pid)).await
            }
            Action::DropSlot { side, slot } => {
                self.node(*side).mutate(guard, &statements::drop_slot(slot)).await
            }
            Action::DropOrigin { side, origin } => {
                self.node(*side).mutate(guard, &statements::drop_origin(origin)).await
            }
            Action::DropNode { side } => {
                self.node(*side).mutate(guard, &statements::drop_node(&name.node(*side))).await
            }
            Action::Remove { side, extension } => self.remove(*side, *extension, guard).await,
            Action::ArchiveJournal => self.archive_journal(facts).await,
            Action::DropJournal => {
                self.journal.drop(name, facts.epoch).await.map_err(journal_fault)
            }
            Action::StopJob => {
                self.shut_down().await;
                self.release_snapshots(None).await.map_err(Fault::Failed)
            }
            // The engine gives these to the traffic.
            Action::PauseTraffic { .. }
            | Action::PointTraffic { .. }
            | Action::ResumeTraffic { .. } => Ok(()),
            Action::CopySchema
            | Action::SetAside { .. }
            | Action::PutBack
            | Action::BuildKeys
            | Action::CountRows
            | Action::AddToSets { .. }
            | Action::TakeSnapshot
            | Action::CopyRows { .. }
            | Action::BuildIndexes
            | Action::Analyze => {
                self.start_job(action, facts);
                Ok(())
            }
        }
    }

    async fn on_subscriber(
        &self,
        direction: Direction,
        guard: Guard,
        sql: &str,
    ) -> Result<(), Fault> {
        self.node(direction.to()).mutate(guard, sql).await
    }

    async fn install(
        &self,
        side: Side,
        id: uuid::Uuid,
        creates_extension: bool,
        epoch: i64,
    ) -> Result<(), Fault> {
        let node = self.node(side);
        let mut client = node.client().await.map_err(|error| node.fault(&error))?;
        // Before there is a record there is nothing to guard with; the journal's lease alone
        // stands against a second daemon, and every statement here may run twice.
        let result = async {
            if creates_extension {
                client.batch_execute(statements::CREATE_EXTENSION).await?;
            }
            migrate_node(&mut client).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                LookError::Said(format!("{error}: {}", cause.unwrap_or_default()))
            })?;
            let record = statements::insert_record(&self.config.name, side, id, epoch);
            client.batch_execute(&record).await?;
            Ok::<_, LookError>(())
        };
        let result = result.await;
        drop(client);
        result.map_err(|error| node.fault(&error))
    }

    async fn slot_name(&self, direction: Direction) -> Result<String, Fault> {
        match self.subscription(direction).await {
            Ok(Some(subscription)) => Ok(subscription.slot),
            Ok(None) => Err(Fault::Failed(Blocker::new(
                "subscription_missing",
                format!("the {direction} subscription is gone"),
                "abandon the migration, and start again",
            ))),
            Err(error) => Err(self.node(direction.to()).fault(&error)),
        }
    }

    async fn start_stream(
        &self,
        direction: Direction,
        at: pgferry_plan::Lsn,
        guard: Guard,
    ) -> Result<(), Fault> {
        let slot = self.slot_name(direction).await?;
        let with_origin = self.may_use_origins(direction.to()).await?;
        let subscription = self.config.name.subscription(direction);
        let sql = statements::start_stream(&subscription, &slot, at, with_origin);
        self.on_subscriber(direction, guard, &sql).await
    }

    /// Whether a column of the source holds OIDs under a `reg*` type: pglogical would send the
    /// number between servers of one version, and the other server knows it by another name.
    async fn has_oid_columns(&self) -> Result<bool, Fault> {
        let node = self.node(Side::Source);
        let look = async {
            let client = node.client().await?;
            Ok::<bool, LookError>(client.query_one(HAS_OID_COLUMNS, &[]).await?.try_get(0)?)
        };
        look.await.map_err(|error| node.fault(&error))
    }

    /// Whether the role may use replication origins on a side; they are granted one by one.
    pub(crate) async fn may_use_origins(&self, side: Side) -> Result<bool, Fault> {
        let node = self.node(side);
        let look = async {
            let client = node.client().await?;
            Ok::<bool, LookError>(client.query_one(MAY_USE_ORIGINS, &[]).await?.try_get(0)?)
        };
        look.await.map_err(|error| node.fault(&error))
    }

    /// Triggers one by one under a short lock_timeout, then the extension where it is ours, then
    /// pgferry's own tables: they hold the guard, and so go last.
    async fn remove(&self, side: Side, extension: bool, guard: Guard) -> Result<(), Fault> {
        let node = self.node(side);
        let look = async {
            let client = node.client().await?;
            let mut drops: Vec<String> = Vec::new();
            for row in client.query(TRUNCATE_TRIGGERS, &[]).await? {
                drops.push(row.try_get(0)?);
            }
            let there = match client.query_opt("SELECT 1 FROM pgferry.node", &[]).await {
                Ok(row) => row.is_some(),
                Err(error) if is_missing(&error) => false,
                Err(error) => return Err(error.into()),
            };
            Ok::<_, LookError>((drops, there))
        };
        let (triggers, guarded) = look.await.map_err(|error| node.fault(&error))?;
        for drop in triggers {
            unless_forbidden(
                node.mutate(guard, &format!("SET LOCAL lock_timeout = '1s'; {drop}")).await,
            )?;
        }
        if extension {
            unless_forbidden(node.mutate(guard, statements::DROP_EXTENSION).await)?;
        }
        if !guarded {
            return Ok(());
        }
        node.mutate(guard, statements::REMOVE).await
    }

    async fn archive_journal(&self, facts: &Facts) -> Result<(), Fault> {
        self.journal.archive(&self.config.name, facts).await.map_err(journal_fault)?;
        self.archived.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

/// What privileges forbid is named by the leftover scan, with the statement for an administrator.
fn unless_forbidden(result: Result<(), Fault>) -> Result<(), Fault> {
    match result {
        Err(Fault::Failed(blocker)) if blocker.code == "insufficient_privilege" => Ok(()),
        Ok(()) => Ok(()),
        Err(fault @ (Fault::EpochRaised | Fault::Failed(_))) => Err(fault),
    }
}

fn journal_fault(error: crate::journal::JournalError) -> Fault {
    Fault::Failed(Blocker::new(
        "journal_failed",
        error.to_string(),
        "it is tried again; look at journal.archive_dir and at the journal's database",
    ))
}

const HAS_OID_COLUMNS: &str = "\
    WITH RECURSIVE used(typid) AS ( \
        SELECT DISTINCT a.atttypid FROM pg_catalog.pg_attribute a \
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' \
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid >= 16384 \
        UNION \
        SELECT i.typid FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.typid \
        CROSS JOIN LATERAL (SELECT t.typbasetype UNION ALL SELECT t.typelem UNION ALL \
            SELECT a.atttypid FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = t.typrelid AND a.attnum > 0) AS i(typid) WHERE i.typid <> 0) \
    SELECT EXISTS (SELECT FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.typid \
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typname LIKE 'reg%')";

/// Before 14 a superuser alone may, whatever is granted.
const MAY_USE_ORIGINS: &str = "\
    SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE')) AND bool_and( \
        current_setting('server_version_num')::int >= 140000 \
        OR current_setting('is_superuser')::bool) FROM pg_catalog.pg_proc p \
    WHERE p.proname IN ('pg_replication_origin_advance', 'pg_replication_origin_session_setup', \
        'pg_replication_origin_xact_setup', 'pg_replication_origin_session_reset') \
    AND p.pronamespace = 'pg_catalog'::regnamespace";

/// pglogical leaves them behind when a table leaves its sets.
const TRUNCATE_TRIGGERS: &str = "\
    SELECT format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname) \
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE starts_with(t.tgname, 'queue_truncate_trigger_') AND n.nspname <> 'pgferry'";
