//! The live partitions of one node.

use kelvin_protocol::{Value, ValueRef};

use super::places::{Places, by_value};
use super::window::Window;
use crate::plan::node::{Node, PartitionKey};

/// The live partitions of a node, by their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partitions {
    /// Keys, each with the number of kept parent rows that refer to the partition; where the node
    /// has a limit, with its position in `limited`.
    keys: Places,
    limited: Option<Box<Limited>>,
}

/// Partitions of a node with a limit.
#[derive(Clone, Debug, Default)]
struct Limited {
    partitions: Vec<Option<Partition>>,
    /// Positions that are free.
    free: Vec<u32>,
}

/// A live partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition {
    /// Kept parent rows that refer to it.
    pub(crate) parents: u32,
    /// The rows it keeps, where the node has a limit.
    pub(crate) window: Window,
}

impl Partitions {
    /// Those with these keys, which are in the order of their values, of so many parents each;
    /// windows are still empty.
    pub(crate) fn of(node: &Node, keys: &[(PartitionKey, u32)]) -> Self {
        let mut limited = node.limit.map(|_| Limited {
            partitions: Vec::with_capacity(keys.len()),
            free: Vec::new(),
        });
        let mut packed = Places::new(node.correlation.len());
        packed.extend(keys.iter().map(|(key, parents)| {
            let number = limited.as_mut().map_or(*parents, |limited| {
                let window = Window::of(&node.order);
                limited.put(Partition {
                    parents: *parents,
                    window,
                })
            });
            (refs(key), number.into())
        }));
        Self {
            keys: packed,
            limited: limited.map(Box::new),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All keys, in the order of their values.
    pub(crate) fn keys(&self) -> impl Iterator<Item = PartitionKey> + '_ {
        self.keys.iter().map(|(key, _)| key)
    }

    pub(crate) fn contains(&self, key: &[ValueRef<'_>]) -> bool {
        self.keys.number(key, by_value).is_some()
    }

    /// Kept parent rows that refer to a partition: none if it is not live.
    pub(crate) fn parents(&self, key: &[Value]) -> u32 {
        let number = self.keys.number(&refs(key), by_value);
        let parents = number.and_then(|number| match &self.limited {
            Some(limited) => Some(limited.get(number)?.parents),
            None => u32::try_from(number).ok(),
        });
        parents.unwrap_or_default()
    }

    /// The window of a live partition, where the node has a limit.
    pub(crate) fn window(&self, key: &[Value]) -> Option<&Window> {
        let number = self.keys.number(&refs(key), by_value)?;
        let partition = self.limited.as_ref()?.get(number)?;
        Some(&partition.window)
    }

    pub(crate) fn window_mut(&mut self, key: &[Value]) -> Option<&mut Window> {
        let number = self.keys.number(&refs(key), by_value)?;
        let partition = self.limited.as_mut()?.get_mut(number)?;
        Some(&mut partition.window)
    }

    /// Adds a partition.
    pub(crate) fn insert(&mut self, key: &[Value], partition: Partition) {
        let parents = i64::from(partition.parents);
        let number = match &mut self.limited {
            Some(limited) => i64::from(limited.put(partition)),
            None => parents,
        };
        self.keys.put(&refs(key), number, by_value);
    }

    /// Says how many kept parent rows refer to a live partition.
    pub(crate) fn set_parents(&mut self, key: &[Value], parents: u32) {
        let key = refs(key);
        match &mut self.limited {
            Some(limited) => {
                let number = self.keys.number(&key, by_value);
                if let Some(partition) = number.and_then(|number| limited.get_mut(number)) {
                    partition.parents = parents;
                }
            }
            None => {
                self.keys.put(&key, parents.into(), by_value);
            }
        }
    }

    /// Ends a partition; gives what was known of it.
    pub(crate) fn remove(&mut self, key: &[Value]) -> Option<Partition> {
        let key = refs(key);
        let number = self.keys.number(&key, by_value)?;
        self.keys.remove(&key, number, by_value);
        match &mut self.limited {
            Some(limited) => limited.take(number),
            None => Some(Partition {
                parents: u32::try_from(number).unwrap_or_default(),
                window: Window::default(),
            }),
        }
    }
}

impl Limited {
    fn get(&self, at: i64) -> Option<&Partition> {
        self.partitions.get(usize::try_from(at).ok()?)?.as_ref()
    }

    fn get_mut(&mut self, at: i64) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::try_from(at).ok()?)?.as_mut()
    }

    /// Takes in a partition; gives its position.
    fn put(&mut self, partition: Partition) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.partitions.push(None);
            (self.partitions.len() - 1) as u32
        });
        if let Some(place) = self.partitions.get_mut(at as usize) {
            *place = Some(partition);
        }
        at
    }

    fn take(&mut self, at: i64) -> Option<Partition> {
        let at = u32::try_from(at).ok()?;
        let partition = self.partitions.get_mut(at as usize)?.take();
        self.free.push(at);
        partition
    }
}

pub(crate) fn refs(key: &[Value]) -> Vec<ValueRef<'_>> {
    key.iter().map(Value::as_ref).collect()
}
