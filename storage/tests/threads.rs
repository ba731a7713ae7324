//! What may cross threads.

use kelvin_storage::{Groups, Loader, Replica, RowScan, TableLoader, View};

fn shared<T: Send + Sync + 'static>() {}
fn sent<T: Send + 'static>() {}

#[test]
fn handles_are_shared_and_scans_are_sent_between_threads() {
    shared::<Replica>();
    shared::<View>();
    shared::<Groups>();
    shared::<Loader>();
    sent::<TableLoader>();
    sent::<RowScan>();
}
