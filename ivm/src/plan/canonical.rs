//! The canonical form of a query as bytes, and its hash.
//!
//! Two drafts with the same bytes have the same rows in every database. Everything is in names, so
//! that the same query comes to the same bytes on every node. Aliases are not in it, nor is the
//! order of a query that has neither limit nor start: they say nothing about which rows. TRUE and
//! FALSE are told apart. Text and lists carry their length, so that no two forms run together.

use kelvin_protocol::{Direction, Value};
use kelvin_storage::Table;
use sha2::{Digest, Sha256};

use crate::check::Check;
use crate::plan::draft::{Draft, Filter, Link};

/// Version of the form; part of the hash.
const FORM: u8 = 2;

/// Hash of a draft's canonical form.
///
/// It is a cryptographic one: plans are shared between users, so that nobody may find a query which
/// hashes to somebody else's.
pub(crate) fn hash(draft: &Draft) -> [u8; 16] {
    let mut form = Form(vec![FORM]);
    form.draft(draft);
    let digest = Sha256::digest(&form.0);
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(digest.iter()) {
        *to = *from;
    }
    id
}

/// The conditions of a junction, each once: cheap ones first, then by their form.
pub(crate) fn sorted_filters(filters: Vec<Filter>) -> Vec<Filter> {
    let rank = |filter: &Filter| match filter {
        Filter::Const(_) | Filter::Test { .. } => 0,
        Filter::All(_) | Filter::Any(_) => 1,
        Filter::Exists { .. } => 2,
    };
    sorted(filters, |filter| {
        let mut form = Form(vec![rank(filter)]);
        form.filter(filter, None);
        form.0
    })
}

/// The children of a query, each once.
pub(crate) fn sorted_links(links: Vec<Link>) -> Vec<Link> {
    sorted(links, |link| {
        let mut form = Form(Vec::new());
        form.link(link, None);
        form.0
    })
}

fn sorted<T>(items: Vec<T>, form: impl Fn(&T) -> Vec<u8>) -> Vec<T> {
    let mut formed: Vec<_> = items.into_iter().map(|item| (form(&item), item)).collect();
    formed.sort_by(|(a, _), (b, _)| a.cmp(b));
    formed.dedup_by(|(a, _), (b, _)| a == b);
    formed.into_iter().map(|(_, item)| item).collect()
}

/// A canonical form in the making.
#[derive(Default)]
pub(crate) struct Form(Vec<u8>);

/// Columns are written by name where the table is known, else by position: sorting the members of
/// one junction, whose table is one, needs no more, and the hash always knows the table.
pub(crate) type Owner<'a> = Option<&'a Table>;

impl Form {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    pub(crate) fn number(&mut self, number: usize) {
        self.0.extend_from_slice(&(number as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn column(&mut self, owner: Owner<'_>, at: usize) {
        match owner.and_then(|table| table.columns.get(at)) {
            Some(column) => self.text(&column.name),
            None => self.number(at),
        }
    }

    fn columns(&mut self, owner: Owner<'_>, columns: &[usize]) {
        self.number(columns.len());
        for at in columns {
            self.column(owner, *at);
        }
    }

    pub(crate) fn order(&mut self, owner: Owner<'_>, order: &[(usize, Direction)]) {
        self.number(order.len());
        for (at, direction) in order {
            self.column(owner, *at);
            self.tag(match direction {
                Direction::Asc => 0,
                Direction::Desc => 1,
            });
        }
    }

    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(0),
            Value::Bool(truth) => {
                self.tag(1);
                self.tag(u8::from(*truth));
            }
            Value::Number(number) => {
                self.tag(2);
                self.0.extend_from_slice(&number.to_bits().to_be_bytes());
            }
            Value::BigInt(int) => {
                self.tag(3);
                self.0.extend_from_slice(&int.to_be_bytes());
            }
            Value::String(text) => {
                self.tag(4);
                self.text(text);
            }
            Value::Json(text) => {
                self.tag(5);
                self.text(text);
            }
        }
    }

    pub(crate) fn values(&mut self, values: &[Value]) {
        self.number(values.len());
        for value in values {
            self.value(value);
        }
    }

    /// A table by name and form: a plan for one form of a table must not be taken for one of
    /// another.
    fn table(&mut self, table: &Table) {
        self.text(&table.name);
        self.number(table.columns.len());
        for column in &table.columns {
            self.text(&column.name);
            self.0.extend_from_slice(&column.attnum.to_be_bytes());
            self.0.extend_from_slice(&column.type_oid.to_be_bytes());
            self.text(&column.upstream_type);
            self.tag(u8::from(column.not_null));
        }
        for key in std::iter::once(&table.key).chain(&table.unique_keys) {
            self.columns(Some(table), key);
        }
    }

    fn draft(&mut self, draft: &Draft) {
        let owner = Some(&*draft.table);
        self.table(&draft.table);
        self.columns(owner, &draft.key);
        match draft.limit {
            None => self.tag(0),
            Some(limit) => {
                self.tag(1);
                self.number(limit);
                self.order(owner, draft.order.decisive());
            }
        }
        match &draft.start {
            None => self.tag(0),
            Some(start) => {
                self.tag(if start.exclusive { 1 } else { 2 });
                self.order(owner, &start.order);
                self.values(&start.values);
            }
        }
        self.filter(&draft.filter, owner);
        self.number(draft.related.len());
        let mut related: Vec<_> = draft
            .related
            .iter()
            .map(|link| {
                let mut form = Self(Vec::new());
                form.link(link, owner);
                form.0
            })
            .collect();
        related.sort_unstable();
        for link in related {
            self.0.extend_from_slice(&link);
        }
    }

    fn link(&mut self, link: &Link, parent: Owner<'_>) {
        let mut pairs: Vec<_> = link
            .parent
            .iter()
            .zip(&link.child)
            .map(|(of_parent, of_child)| {
                let mut form = Self(Vec::new());
                form.column(parent, *of_parent);
                form.column(Some(&link.draft.table), *of_child);
                form.0
            })
            .collect();
        pairs.sort_unstable();
        self.number(pairs.len());
        for pair in pairs {
            self.0.extend_from_slice(&pair);
        }
        self.draft(&link.draft);
    }

    fn filter(&mut self, filter: &Filter, owner: Owner<'_>) {
        match filter {
            Filter::Const(truth) => self.tag(u8::from(*truth)),
            Filter::Test { column, check } => {
                self.tag(2);
                self.column(owner, *column);
                self.check(check);
            }
            Filter::All(members) => {
                self.tag(3);
                self.members(members, owner);
            }
            Filter::Any(members) => {
                self.tag(4);
                self.members(members, owner);
            }
            Filter::Exists {
                negated,
                synced,
                link,
            } => {
                self.tag(5);
                self.tag(u8::from(*negated));
                self.tag(u8::from(*synced));
                self.link(link, owner);
            }
        }
    }

    fn members(&mut self, members: &[Filter], owner: Owner<'_>) {
        self.number(members.len());
        let mut forms: Vec<_> = members
            .iter()
            .map(|member| {
                let mut form = Self(Vec::new());
                form.filter(member, owner);
                form.0
            })
            .collect();
        forms.sort_unstable();
        for form in forms {
            self.0.extend_from_slice(&form);
        }
    }

    pub(crate) fn check(&mut self, check: &Check) {
        let (tag, value) = match check {
            Check::Equal(value) => (0, value),
            Check::NotEqual(value) => (1, value),
            Check::IsNull => (2, &Value::Null),
            Check::NotNull => (3, &Value::Null),
            Check::Differs(value) => (4, value),
            Check::Less(value) => (5, value),
            Check::AtMost(value) => (6, value),
            Check::Greater(value) => (7, value),
            Check::AtLeast(value) => (8, value),
            Check::Among { values, negated } => {
                self.tag(if *negated { 10 } else { 9 });
                let mut forms: Vec<_> = values
                    .iter()
                    .map(|value| {
                        let mut form = Self(Vec::new());
                        form.value(value);
                        form.0
                    })
                    .collect();
                forms.sort_unstable();
                self.number(forms.len());
                for form in forms {
                    self.0.extend_from_slice(&form);
                }
                return;
            }
            Check::Like(like) => {
                self.tag(11 + 2 * u8::from(like.ignore_case) + u8::from(like.negated));
                self.text(&like.source);
                return;
            }
        };
        self.tag(tag);
        self.value(value);
    }
}
