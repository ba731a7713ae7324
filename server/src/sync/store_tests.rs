use kelvin_protocol::ClientSchema;
use kelvin_storage::{Catalog, Replica, ReplicaIdentity, ReplicaOptions};

use super::*;
use crate::sync::desire::put_for_test;

fn store() -> (tempfile::TempDir, LocalGroups) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(Vec::new(), Vec::new());
    let loader = Replica::create(dir.path(), &ReplicaOptions::default(), catalog).unwrap();
    let groups = loader
        .finish(ReplicaIdentity::default(), 1)
        .unwrap()
        .groups();
    (dir, LocalGroups(groups))
}

fn group(hashes: &[&str]) -> GroupRecord {
    let mut record = GroupRecord::new(0, ClientSchema::default());
    for hash in hashes {
        put_for_test(&mut record, "c1", hash);
    }
    record
}

/// All of a group, to be compared.
fn shown(record: &GroupRecord) -> (String, Vec<(String, String)>) {
    let json = |query: &QueryRecord| serde_json::to_string(query).unwrap();
    let queries = record.queries.iter();
    (
        serde_json::to_string(record).unwrap(),
        queries
            .map(|(hash, query)| (hash.clone(), json(query)))
            .collect(),
    )
}

fn loaded(store: &LocalGroups, name: &str) -> Option<(String, Vec<(String, String)>)> {
    let record = store.load(name).unwrap()?;
    assert!(matches!(record.queries.unsaved(), Unsaved::Some(hashes) if hashes.is_empty()));
    Some(shown(&record))
}

fn unsaved(record: &GroupRecord) -> Vec<&str> {
    match record.queries.unsaved() {
        Unsaved::All => panic!("nothing was saved"),
        Unsaved::Some(hashes) => hashes.iter().map(String::as_str).collect(),
    }
}

#[test]
fn a_group_is_loaded_as_it_was_saved() {
    let (_dir, store) = store();
    assert_eq!(loaded(&store, "g"), None);
    let mut record = group(&["h1", "h2", "h3"]);
    store.save("g", &mut record).unwrap();
    assert_eq!(loaded(&store, "g"), Some(shown(&record)));
    record.withdraw("h1", 7, 70);
    record.queries.remove("h2");
    record.config = 7;
    store.save("g", &mut record).unwrap();
    assert_eq!(loaded(&store, "g"), Some(shown(&record)));
    assert_eq!(loaded(&store, "g").unwrap().1.len(), 2);
    store.delete("g").unwrap();
    assert_eq!(loaded(&store, "g"), None);
    assert_eq!(store.0.prefix("").count(), 0);
}

#[test]
fn a_query_is_written_when_it_has_changed_and_not_when_it_was_looked_at() {
    let (_dir, store) = store();
    let mut record = group(&["h1", "h2"]);
    let ast = "{}".into();
    record.assign("h1", &ast, 1, 10);
    store.save("g", &mut record).unwrap();
    assert_eq!(unsaved(&record), [""; 0]);
    put_for_test(&mut record, "c1", "h1");
    record.assign("h1", &ast, 2, 20);
    record.forget_clients(&["c2".into()], 20);
    record.trim(5);
    assert_eq!(unsaved(&record), [""; 0]);
    put_for_test(&mut record, "c1", "h3");
    assert_eq!(unsaved(&record), ["h3"]);
    record.withdraw("h1", 3, 30);
    assert_eq!(unsaved(&record), ["h1", "h3"]);
    store.save("g", &mut record).unwrap();
    record.forget_clients(&["c1".into()], 40);
    assert_eq!(unsaved(&record), ["h1", "h2", "h3"]);
    store.save("g", &mut record).unwrap();
    record.trim(100);
    assert_eq!(unsaved(&record), ["h1"]);
    store.save("g", &mut record).unwrap();
    assert_eq!(loaded(&store, "g"), Some(shown(&record)));
}

#[test]
fn a_group_that_starts_afresh_has_no_query_of_the_one_before() {
    let (_dir, store) = store();
    store.save("g", &mut group(&["h1", "h2"])).unwrap();
    let mut record = group(&["h2", "h3"]);
    store.save("g", &mut record).unwrap();
    assert_eq!(loaded(&store, "g"), Some(shown(&record)));
}

#[test]
fn groups_whose_names_begin_alike_keep_their_queries_apart() {
    let (_dir, store) = store();
    let names = ["a", "a:h1", "1:a:", "a:", "11:a"];
    for name in names {
        store.save(name, &mut group(&[name, "h1"])).unwrap();
    }
    for name in names {
        assert_eq!(loaded(&store, name), Some(shown(&group(&[name, "h1"]))));
    }
    store.delete("a").unwrap();
    for name in names.into_iter().skip(1) {
        assert_eq!(loaded(&store, name), Some(shown(&group(&[name, "h1"]))));
    }
}

#[test]
fn groups_nobody_used_for_long_are_purged_with_their_queries() {
    let (_dir, store) = store();
    for (name, last_active_ms) in [("old", 10), ("young", 30)] {
        let mut record = group(&["h1"]);
        record.last_active_ms = last_active_ms;
        store.save(name, &mut record).unwrap();
    }
    store
        .0
        .write([("gdamaged".into(), Some(b"{".to_vec()))])
        .unwrap();
    assert_eq!(store.purge(20).unwrap(), 2);
    assert_eq!(loaded(&store, "old"), None);
    assert!(loaded(&store, "young").is_some());
    assert_eq!(store.0.prefix("").count(), 2);
}
