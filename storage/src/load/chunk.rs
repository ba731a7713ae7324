//! A piece of memory that is filled from the front, and can be lent to the engine without copying.

use byteview::{Builder, ByteView};

/// Memory that holds records.
pub(super) struct Chunk {
    memory: Builder,
    filled: usize,
}

impl Chunk {
    /// An empty one that takes `bytes`, which are less than 4 GiB.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            memory: ByteView::builder(bytes),
            filled: 0,
        }
    }

    /// How much it takes in all.
    pub(super) fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// How much is left of that.
    pub(super) fn room(&self) -> usize {
        self.memory.len() - self.filled
    }

    /// What was put into it.
    pub(super) fn filled(&self) -> &[u8] {
        self.memory.get(..self.filled).unwrap_or_default()
    }

    /// The same, to be changed.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.filled).unwrap_or_default()
    }

    /// The next `bytes`, which hold anything, to be filled; fewer if there is no room for them.
    pub(super) fn append(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += bytes.min(self.room());
        self.memory.get_mut(start..self.filled).unwrap_or_default()
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// What was put into it and whatever lies behind, to be shared in parts.
    pub(super) fn share(self) -> ByteView {
        self.memory.freeze()
    }

    /// An empty one in the memory of one that was shared, unless somebody has a part of it still.
    pub(super) fn reclaim(mut memory: ByteView) -> Option<Self> {
        let alone = memory.get_mut().is_some();
        alone.then(|| Self {
            memory: Builder::new(memory),
            filled: 0,
        })
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_only_when_nobody_has_a_part_of_it() {
        let mut chunk = Chunk::new(100);
        chunk.append(60).fill(7);
        assert_eq!((chunk.filled(), chunk.room()), (&[7; 60][..], 40));
        assert_eq!(chunk.append(50).len(), 40);
        let shared = chunk.share();
        let part = shared.slice(10..50);
        assert!(Chunk::reclaim(shared.clone()).is_none());
        assert_eq!(part[..], [7; 40]);
        drop(part);
        let chunk = Chunk::reclaim(shared).unwrap();
        assert_eq!((chunk.filled().len(), chunk.capacity()), (0, 100));
    }
}
