//! Places of rows, or keys of partitions, in order and packed.

use std::cmp::Ordering;

use kelvin_protocol::{Value, ValueRef};

use super::packing::{Before, Reader, Values, Writer};

/// Entries that are packed together, at most. To find one of them, those before it are read; to
/// change it, those behind it are copied.
const MOST_TOGETHER: usize = 20;
/// Blocks with fewer are joined to a neighbour, where one block can hold both.
const FEW_TOGETHER: usize = MOST_TOGETHER / 4;

/// Bytes that one more entry mostly takes at most.
const ROOM: usize = 32;

/// Rows of values in an order, no two of them equal in it, each with a number. Every method that
/// compares has to be told the same order.
///
/// A view may have very many, so they are packed in blocks; one is found by the first entries of
/// these, and then by going through its block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Values of an entry.
    width: usize,
    /// In order, none of them empty.
    blocks: Vec<Block>,
}

/// How many entries there are, then the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block(Box<[u8]>);

/// An entry by itself: its values and its number.
pub(crate) type Place = (Box<[Value]>, i64);

impl Places {
    /// None, of so many values each.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            width,
            blocks: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.iter().map(Block::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        self.blocks.iter().flat_map(|block| {
            let mut reader = block.reader(self.width);
            std::iter::from_fn(move || reader.next().map(to_place))
        })
    }

    /// The one at a position.
    pub(crate) fn get(&self, mut at: usize) -> Option<Place> {
        for block in &self.blocks {
            if at < block.len() {
                let mut reader = block.reader(self.width);
                reader.skip(at)?;
                return reader.next().map(to_place);
            }
            at -= block.len();
        }
        None
    }

    /// Position and number of an entry.
    pub(crate) fn find(
        &self,
        target: &[ValueRef<'_>],
        compare: impl Fn(&[ValueRef<'_>], &[ValueRef<'_>]) -> Ordering,
    ) -> Option<(usize, i64)> {
        let at = self.block_for(target, &compare);
        let mut reader = self.blocks.get(at)?.reader(self.width);
        let found = skip_to(target, &mut reader, &compare);
        let position = self.before(at) + found.before;
        found.equal.then(|| (position, reader.number()))
    }

    /// The number of an entry, if there is such a one.
    pub(crate) fn number(
        &self,
        target: &[ValueRef<'_>],
        compare: impl Fn(&[ValueRef<'_>], &[ValueRef<'_>]) -> Ordering,
    ) -> Option<i64> {
        let block = self.blocks.get(self.block_for(target, &compare))?;
        let mut reader = block.reader(self.width);
        let found = skip_to(target, &mut reader, &compare);
        found.equal.then(|| reader.number())
    }

    /// Adds an entry, or gives one another number; its position.
    pub(crate) fn put(
        &mut self,
        target: &[ValueRef<'_>],
        number: i64,
        compare: impl Fn(&[ValueRef<'_>], &[ValueRef<'_>]) -> Ordering,
    ) -> usize {
        let at = self.block_for(target, &compare);
        let Some(block) = self.blocks.get(at) else {
            let mut packer = Packer::new(self.width, MOST_TOGETHER);
            packer.push(target, number);
            self.blocks = packer.finish();
            return 0;
        };
        let mut reader = block.reader(self.width);
        let Found {
            before,
            begin,
            equal,
        } = skip_to(target, &mut reader, &compare);
        let position = self.before(at) + before;
        let mut writer = block.writer(begin);
        writer.push(target, number);
        let mut len = block.len();
        if !equal {
            // What was read is not skipped, and is read once more.
            reader = block.reader_from(begin, self.width);
            len += 1;
        }
        writer.push_rest(&mut reader);
        let packed = Block::of(len, writer);
        if len > MOST_TOGETHER {
            let mut packer = Packer::new(self.width, len.div_ceil(2));
            packer.push_all(&packed);
            self.replace(at, 1, packer);
        } else if let Some(block) = self.blocks.get_mut(at) {
            *block = packed;
        }
        position
    }

    /// Takes out an entry that has this number; where it was, if there is such a one.
    pub(crate) fn remove(
        &mut self,
        target: &[ValueRef<'_>],
        number: i64,
        compare: impl Fn(&[ValueRef<'_>], &[ValueRef<'_>]) -> Ordering,
    ) -> Option<usize> {
        let at = self.block_for(target, &compare);
        let block = self.blocks.get(at)?;
        let mut reader = block.reader(self.width);
        let Found {
            before,
            begin,
            equal,
        } = skip_to(target, &mut reader, &compare);
        if !equal || reader.number() != number {
            return None;
        }
        let position = self.before(at) + before;
        let len = block.len() - 1;
        if len == 0 {
            self.blocks.remove(at);
            return Some(position);
        }
        let mut writer = block.writer(begin);
        writer.push_rest(&mut reader);
        let packed = Block::of(len, writer);
        if let Some(block) = self.blocks.get_mut(at) {
            *block = packed;
        }
        if len < FEW_TOGETHER {
            self.join(at);
            self.join(at.wrapping_sub(1));
        }
        Some(position)
    }

    /// Adds entries behind the last.
    pub(crate) fn extend<'v>(&mut self, entries: impl Iterator<Item = (Vec<ValueRef<'v>>, i64)>) {
        let mut packer = Packer::new(self.width, MOST_TOGETHER);
        let last = self.blocks.len().saturating_sub(1);
        if let Some(block) = self.blocks.get(last) {
            packer.push_all(block);
        }
        for (values, number) in entries {
            packer.push(&values, number);
        }
        self.replace(last, 1, packer);
    }

    /// Lets go of all but the first so many.
    pub(crate) fn truncate(&mut self, len: usize) {
        let mut left = len;
        for at in 0..self.blocks.len() {
            let block = &self.blocks[at];
            if block.len() > left {
                let mut packer = Packer::new(self.width, MOST_TOGETHER);
                let mut reader = block.reader(self.width);
                for _ in 0..left {
                    if let Some((values, number)) = reader.next() {
                        packer.push(&values, number);
                    }
                }
                self.replace(at, self.blocks.len() - at, packer);
                self.blocks.shrink_to_fit();
                return;
            }
            left -= block.len();
        }
    }

    /// Entries before the block at a position.
    fn before(&self, at: usize) -> usize {
        self.blocks.iter().take(at).map(Block::len).sum()
    }

    /// Position of the block that the target is in, if it is in any.
    fn block_for(
        &self,
        target: &[ValueRef<'_>],
        compare: &impl Fn(&[ValueRef<'_>], &[ValueRef<'_>]) -> Ordering,
    ) -> usize {
        let after_first = self.blocks.get(1..).unwrap_or_default();
        let mut reader = Reader::new(&[], self.width);
        let (mut low, mut high) = (0, after_first.len());
        while let Some(block) = after_first
            .get(low..high)
            .and_then(|rest| rest.get(rest.len() / 2))
        {
            let middle = low + (high - low) / 2;
            reader.turn_to(block.entries());
            let first = reader.next();
            if first.is_some_and(|(first, _)| compare(&first, target).is_le()) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Makes one of the block at a position and the next, if there are both and one can hold them.
    fn join(&mut self, at: usize) {
        let next = at.wrapping_add(1);
        let (Some(block), Some(neighbour)) = (self.blocks.get(at), self.blocks.get(next)) else {
            return;
        };
        if block.len() + neighbour.len() > MOST_TOGETHER {
            return;
        }
        let mut packer = Packer::new(self.width, MOST_TOGETHER);
        packer.push_all(block);
        packer.push_all(neighbour);
        self.replace(at, 2, packer);
    }

    fn replace(&mut self, at: usize, blocks: usize, packer: Packer) {
        let until = (at + blocks).min(self.blocks.len());
        if at == 0 && until == self.blocks.len() {
            // Most have one block for ever, and no room for more is set aside.
            self.blocks = packer.finish();
        } else {
            self.blocks.splice(at..until, packer.finish());
        }
    }
}

/// Where in a block an entry is, or would be.
struct Found {
    /// Entries before it.
    before: usize,
    /// How many bytes were left before it, and what they depend on.
    begin: (usize, Before),
    /// Whether it is there.
    equal: bool,
}

/// Reads up to the first entry that does not come before the target.
fn skip_to(
    target: &[ValueRef<'_>],
    reader: &mut Reader<'_>,
    compare: &impl Fn(&[ValueRef<'_>], &[ValueRef<'_>]) -> Ordering,
) -> Found {
    let mut before = 0;
    loop {
        let begin = reader.left();
        let ordering = reader.next().map(|(values, _)| compare(&values, target));
        if ordering == Some(Ordering::Less) {
            before += 1;
            continue;
        }
        return Found {
            before,
            begin,
            equal: ordering == Some(Ordering::Equal),
        };
    }
}

impl Block {
    fn of(len: usize, writer: Writer) -> Self {
        let mut bytes = writer.finish();
        if let Some(first) = bytes.first_mut() {
            *first = len as u8;
        }
        Self(bytes)
    }

    fn len(&self) -> usize {
        self.0.first().copied().map_or(0, usize::from)
    }

    fn entries(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }

    /// Writes what comes in the place of the last so many bytes.
    fn writer(&self, (left, before): (usize, Before)) -> Writer {
        let (head, _) = self.split(left);
        Writer::behind(head, before, self.0.len() + ROOM)
    }

    fn reader_from(&self, (left, before): (usize, Before), width: usize) -> Reader<'_> {
        Reader::at(self.split(left).1, before, width)
    }

    fn split(&self, left: usize) -> (&[u8], &[u8]) {
        let at = self.0.len().saturating_sub(left);
        self.0.split_at(at)
    }

    fn reader(&self, width: usize) -> Reader<'_> {
        Reader::new(self.entries(), width)
    }
}

fn to_place((values, number): (Values<'_>, i64)) -> Place {
    (
        values.iter().map(|value| value.to_value()).collect(),
        number,
    )
}

/// Packs entries into blocks.
struct Packer {
    width: usize,
    /// Entries of a block.
    most: usize,
    blocks: Vec<Block>,
    writer: Writer,
    len: usize,
}

impl Packer {
    fn new(width: usize, most: usize) -> Self {
        Self {
            width,
            most,
            blocks: Vec::new(),
            writer: Writer::behind(&[0], Before::default(), 0),
            len: 0,
        }
    }

    fn push(&mut self, values: &[ValueRef<'_>], number: i64) {
        if self.len == self.most {
            self.cut();
        }
        self.writer.push(values, number);
        self.len += 1;
    }

    fn push_all(&mut self, block: &Block) {
        let mut reader = block.reader(self.width);
        while let Some((values, number)) = reader.next() {
            self.push(&values, number);
        }
    }

    fn cut(&mut self) {
        let writer =
            std::mem::replace(&mut self.writer, Writer::behind(&[0], Before::default(), 0));
        let len = std::mem::take(&mut self.len);
        self.blocks.push(Block::of(len, writer));
    }

    fn finish(mut self) -> Vec<Block> {
        if self.len > 0 {
            self.cut();
        }
        self.blocks.shrink_to_fit();
        self.blocks
    }
}

/// The order of the values themselves.
pub(crate) fn by_value(a: &[ValueRef<'_>], b: &[ValueRef<'_>]) -> Ordering {
    let pairs = a.iter().zip(b);
    pairs
        .map(|(a, b)| a.zql_cmp(*b))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(i32, i64),
        Remove(i32),
        Extend(u8),
        Truncate(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = -150..150_i32;
        prop_oneof![
            6 => (key.clone(), any::<i64>()).prop_map(|(key, number)| Step::Put(key, number)),
            5 => key.prop_map(Step::Remove),
            1 => any::<u8>().prop_map(Step::Extend),
            1 => (0..300_u16).prop_map(Step::Truncate),
        ]
    }

    fn values(key: i32) -> [Value; 2] {
        let text = Value::from(format!("{}", key % 2));
        [Value::from(f64::from(key / 2)), text]
    }

    fn refs(values: &[Value]) -> Vec<ValueRef<'_>> {
        values.iter().map(Value::as_ref).collect()
    }

    fn before(model: &BTreeMap<Vec<Value>, i64>, key: i32) -> usize {
        model.range(..values(key).to_vec()).count()
    }

    /// Whether a block has fewer entries than one with its neighbour might have.
    fn is_well_filled(places: &Places) -> bool {
        let mut lens = places.blocks.windows(2);
        places
            .blocks
            .iter()
            .all(|block| (1..=MOST_TOGETHER).contains(&block.len()))
            && lens.all(|pair| {
                let [a, b] = [pair[0].len(), pair[1].len()];
                a.min(b) >= FEW_TOGETHER || a + b > MOST_TOGETHER
            })
    }

    proptest! {
        #[test]
        fn places_are_those_that_were_put_and_not_removed(
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let mut places = Places::new(2);
            let mut model: BTreeMap<Vec<Value>, i64> = BTreeMap::new();
            let (mut only_edits, mut last) = (true, 0);
            for step in steps {
                match step {
                    Step::Put(key, number) => {
                        let at = places.put(&refs(&values(key)), number, by_value);
                        model.insert(values(key).into(), number);
                        prop_assert_eq!(at, before(&model, key));
                    }
                    Step::Remove(key) => {
                        let at = before(&model, key);
                        let removed = model.remove(&values(key)[..]);
                        let number = removed.unwrap_or_default();
                        let (key, other) = (values(key), number.wrapping_add(1));
                        prop_assert_eq!(places.remove(&refs(&key), other, by_value), None);
                        let there = places.remove(&refs(&key), number, by_value);
                        prop_assert_eq!(there, removed.map(|_| at));
                    }
                    Step::Extend(count) => {
                        let first = 1000 + last;
                        last += i32::from(count) + 1;
                        let added: Vec<_> = (0..i32::from(count))
                            .map(|n| (values(2 * (first + n)), n))
                            .collect();
                        let entries = added.iter().map(|(values, n)| (refs(values), i64::from(*n)));
                        places.extend(entries);
                        model.extend(added.iter().map(|(values, n)| (values.to_vec(), i64::from(*n))));
                        only_edits = false;
                    }
                    Step::Truncate(len) => {
                        places.truncate(len.into());
                        model = model.into_iter().take(len.into()).collect();
                        only_edits = false;
                    }
                }
                prop_assert_eq!(places.len(), model.len());
                prop_assert_eq!(places.is_empty(), model.is_empty());
                prop_assert!(!only_edits || is_well_filled(&places));
            }
            let all: Vec<(Vec<Value>, i64)> =
                places.iter().map(|(values, number)| (values.into(), number)).collect();
            prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
            for key in -150..150 {
                let key = values(key);
                let expected = model.get(&key[..]).copied();
                prop_assert_eq!(places.number(&refs(&key), by_value), expected);
                let at = all.iter().position(|(known, _)| known[..] == key[..]);
                prop_assert_eq!(places.find(&refs(&key), by_value), at.zip(expected));
            }
            for (at, (values, number)) in all.iter().enumerate() {
                prop_assert_eq!(places.get(at), Some((values.clone().into(), *number)));
            }
            prop_assert_eq!(places.get(all.len()), None);
        }
    }

    #[test]
    fn entries_without_values_are_one() {
        let mut places = Places::new(0);
        places.put(&[], 1, by_value);
        places.put(&[], 2, by_value);
        assert_eq!((places.len(), places.number(&[], by_value)), (1, Some(2)));
        assert_eq!(places.remove(&[], 2, by_value), Some(0));
        assert!(places.is_empty());
    }
}
