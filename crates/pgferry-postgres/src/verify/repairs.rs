//! Rows that wait to be copied again, until the journal holds that they are about to be.

use std::sync::Mutex;

use pgferry_plan::verify::repair::{RepairView, Stage};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::lock;

/// What a verification has stopped in front of, or has done and nobody has written down.
#[derive(Debug, Default)]
pub(crate) struct Repairs(Mutex<Vec<Pending>>);

#[derive(Debug)]
struct Pending {
    view: RepairView,
    go: Option<oneshot::Sender<()>>,
}

impl Repairs {
    /// What is to be seen of them.
    pub(crate) fn views(&self) -> Vec<RepairView> {
        lock(&self.0).iter().map(|pending| pending.view.clone()).collect()
    }

    /// Lets go on what is intended in the journal, and forgets what is written there to have ended.
    pub(crate) fn go_on(&self, begin: &[Uuid], told: &[Uuid]) {
        let mut all = lock(&self.0);
        all.retain(|pending| !told.contains(&pending.view.id));
        for pending in all.iter_mut().filter(|pending| begin.contains(&pending.view.id)) {
            if let Some(go) = pending.go.take() {
                pending.view.stage = Stage::Runs;
                // Whoever waited may have been given up meanwhile.
                let _ = go.send(());
            }
        }
    }

    /// Forgets them all: the verification that they are of was given up.
    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }

    /// Waits until these rows may be copied again; None when that will not be any more.
    pub(super) async fn wait(
        &self,
        run: Uuid,
        table: &str,
        rows: u64,
        somebody: &Notify,
    ) -> Option<Uuid> {
        let (go, gone) = oneshot::channel();
        let id = Uuid::now_v7();
        let view = RepairView { id, run, table: table.to_owned(), rows, stage: Stage::Waits };
        lock(&self.0).push(Pending { view, go: Some(go) });
        somebody.notify_one();
        gone.await.ok().map(|()| id)
    }

    /// Says how it ended with them.
    pub(super) fn end(&self, id: Uuid, rows: u64, refused: Option<String>, somebody: &Notify) {
        if let Some(pending) = lock(&self.0).iter_mut().find(|pending| pending.view.id == id) {
            pending.view.stage = Stage::Ended { rows, refused };
        }
        somebody.notify_one();
    }
}
