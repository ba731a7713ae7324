//! Which groups are awake, and what all of them share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kelvin_storage::Replica;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::catch_up::RowReader;
use super::desire::GroupLimits;
use super::group::{Group, GroupMessage, MAILBOX};
use super::store::GroupStore;
use crate::app_api::{AppApi, Caller};
use crate::auth::Authenticator;
use crate::engine::{Engine, EngineOptions, GroupId};
use crate::http::AdminGate;
use crate::mutation::Mutations;

/// What every group needs.
pub struct Services {
    /// App id: schema of the permissions.
    pub app_id: String,
    /// Shard number.
    pub shard_num: u32,
    /// Lineage of the upstream.
    pub epoch: u32,
    /// The replica.
    pub replica: Replica,
    /// The engine.
    pub engine: Engine,
    /// Where group records are kept.
    pub store: Box<dyn GroupStore>,
    /// Checks tokens.
    pub auth: Authenticator,
    /// The application's endpoints.
    pub app_api: Arc<AppApi>,
    /// Executes and forwards mutations.
    pub mutations: Mutations,
    /// Evaluations that may run at a time for catch-ups and reconciliations.
    pub reading: Arc<Semaphore>,
    /// Limits of one evaluation.
    pub engine_options: EngineOptions,
    /// How often custom queries are transformed again; zero for never.
    pub retransform_interval: Duration,
    /// How often each session's credentials are checked again; zero for never.
    pub revalidate_interval: Duration,
    /// How large a group may grow.
    pub limits: GroupLimits,
    /// Who may use the inspector.
    pub admin: AdminGate,
    /// Version the inspector is told.
    pub server_version: String,
    /// Source of [`GroupId`]s and [`super::session::SessionId`]s.
    pub ids: AtomicU64,
}

impl Services {
    /// A number that was never given before.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A name for a new attachment to the engine.
    pub fn next_group_id(&self) -> GroupId {
        GroupId(self.next_id())
    }

    /// What evaluates plans for a group.
    pub fn row_reader(&self) -> RowReader {
        let options = self.engine_options.clone();
        RowReader {
            replica: self.replica.clone(),
            snapshots: Arc::clone(self.engine.snapshots()),
            budget: Arc::new(move || crate::engine::budget(&options, Instant::now())),
        }
    }

    /// Has the endpoint drop the mutation results of clients that are gone.
    pub fn mutation_results_of_deleted(
        &self,
        group: &str,
        clients: &[String],
        caller: &Arc<Caller>,
    ) {
        self.mutations.clean_up_clients(group, clients, caller);
    }
}

/// The groups that are awake.
pub struct Registry {
    services: Arc<Services>,
    groups: Mutex<HashMap<String, mpsc::Sender<GroupMessage>>>,
    tasks: TaskTracker,
}

impl Registry {
    /// A registry without groups.
    #[must_use]
    pub fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            groups: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// What the groups share.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The mailbox of a group; wakes the group if it is asleep.
    pub fn group(&self, id: &str) -> mpsc::Sender<GroupMessage> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailbox) = groups.get(id).filter(|mailbox| !mailbox.is_closed()) {
            return mailbox.clone();
        }
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let services = Arc::clone(&self.services);
        let group = Group::new(id.to_owned(), services, mailbox, sender.downgrade());
        self.tasks.spawn(group.run());
        groups.insert(id.to_owned(), sender.clone());
        sender
    }

    /// How many groups are awake. Forgets those that fell asleep.
    pub fn len(&self) -> usize {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|_, mailbox| !mailbox.is_closed());
        groups.len()
    }

    /// Whether no group is awake.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes every socket and waits for the groups to end, at most `deadline`.
    pub async fn shut_down(&self, deadline: Duration) {
        let mailboxes: Vec<_> = {
            let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups.values().cloned().collect()
        };
        self.tasks.close();
        let drain = async {
            for mailbox in mailboxes {
                let _ = mailbox.send(GroupMessage::Shutdown).await;
            }
            self.tasks.wait().await;
        };
        if tokio::time::timeout(deadline, drain).await.is_err() {
            tracing::warn!("some client groups did not end in time");
        }
    }
}
