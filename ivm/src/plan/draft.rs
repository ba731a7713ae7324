//! A query resolved against the catalog, still a tree: names are column positions, constants are
//! folded, conditions are flattened, sorted and without duplicates.

use std::sync::Arc;

use kelvin_protocol::{
    Ast, Bound, Condition, CorrelatedSubquery, Correlation, Direction, ExistsOp, Ordering, System,
    Value,
};
use kelvin_storage::{Catalog, Table};

use crate::check::Check;
use crate::order::{RowOrder, Start};
use crate::plan::canonical;
use crate::plan::literal::{Simple, bind_to_column, compile_simple};
use crate::{ClientKeys, Error};

/// How many witnesses of an EXISTS are in a view for each correlation value. One would do; with
/// three, a client that optimistically deletes one does not lose the parent.
pub(crate) const WITNESSES: usize = 3;

/// Levels of subqueries and conditions a query may have; bounds the recursion over it.
const MAX_DEPTH: usize = 100;

/// One query or subquery.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) table: Arc<Table>,
    /// The key clients know the table's rows by.
    pub(crate) key: Vec<usize>,
    pub(crate) order: RowOrder,
    pub(crate) start: Option<Start>,
    pub(crate) filter: Filter,
    pub(crate) limit: Option<usize>,
    /// Children whose rows come along.
    pub(crate) related: Vec<Link>,
}

/// A child and the columns that tie it to its parent, paired by position.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) parent: Vec<usize>,
    pub(crate) child: Vec<usize>,
    pub(crate) draft: Draft,
}

/// A condition.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    Const(bool),
    Test {
        column: usize,
        check: Check,
    },
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Exists {
        negated: bool,
        /// Whether the rows found are in the view.
        synced: bool,
        link: Box<Link>,
    },
}

/// Resolves queries against one catalog and one client schema's keys.
pub(crate) struct Drafter<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) keys: &'a ClientKeys,
}

/// Where in the query the drafter is.
#[derive(Clone, Copy)]
struct Place {
    /// Whether rows found here are in the view.
    synced: bool,
    depth: usize,
}

impl Place {
    fn below(self, synced: bool) -> Self {
        Self {
            synced: self.synced && synced,
            depth: self.depth + 1,
        }
    }
}

impl Drafter<'_> {
    /// Resolves a whole query.
    pub(crate) fn root(&self, ast: &Ast) -> Result<Draft, Error> {
        let place = Place {
            synced: true,
            depth: 0,
        };
        let mut draft = self.node(ast, place)?;
        if draft.limit == Some(0) {
            draft.filter = Filter::Const(false);
            draft.limit = None;
        }
        draft.related = self.related(ast, &draft.table, place)?;
        if matches!(draft.filter, Filter::Const(false)) {
            draft.related.clear();
        }
        Ok(draft)
    }

    /// Everything but the related children.
    fn node(&self, ast: &Ast, place: Place) -> Result<Draft, Error> {
        let table = self.table(&ast.table)?;
        if place.depth > MAX_DEPTH {
            return Err(invalid(
                &table,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let key = self.key(&table)?;
        let order = row_order(&table, ast.order_by.as_deref(), &key)?;
        let start = ast
            .start
            .as_ref()
            .map(|bound| start(&table, bound, &order))
            .transpose()?;
        let limit = ast
            .limit
            .map(|limit| whole_limit(&table, limit))
            .transpose()?;
        let filter = match &ast.filter {
            Some(condition) => self.filter(condition, &table, place)?,
            None => Filter::Const(true),
        };
        Ok(Draft {
            table,
            key,
            order,
            start,
            filter,
            limit,
            related: Vec::new(),
        })
    }

    fn related(&self, ast: &Ast, table: &Arc<Table>, place: Place) -> Result<Vec<Link>, Error> {
        let mut links = Vec::with_capacity(ast.related.len());
        for (at, child) in ast.related.iter().enumerate() {
            let replaced = child.subquery.alias.is_some()
                && ast
                    .related
                    .iter()
                    .skip(at + 1)
                    .any(|later| later.subquery.alias == child.subquery.alias);
            if replaced || child.system == Some(System::Permissions) {
                continue;
            }
            let below = place.below(true);
            let mut draft = self.node(&child.subquery, below)?;
            draft.related = self.related(&child.subquery, &draft.table, below)?;
            let link = link(table, &child.correlation, draft)?;
            let nothing =
                link.draft.limit == Some(0) || matches!(link.draft.filter, Filter::Const(false));
            if !nothing {
                links.push(link);
            }
        }
        Ok(canonical::sorted_links(links))
    }

    fn filter(
        &self,
        condition: &Condition,
        table: &Arc<Table>,
        place: Place,
    ) -> Result<Filter, Error> {
        if place.depth > MAX_DEPTH {
            return Err(invalid(
                table,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        match condition {
            Condition::Simple { op, left, right } => {
                Ok(match compile_simple(table, *op, left, right)? {
                    Simple::Const(truth) => Filter::Const(truth),
                    Simple::Test { column, check } => Filter::Test { column, check },
                })
            }
            Condition::And { conditions } => {
                let members = self.members(conditions, table, place)?;
                Ok(junction(members, true))
            }
            Condition::Or { conditions } => {
                let members = self.members(conditions, table, place)?;
                Ok(junction(members, false))
            }
            Condition::CorrelatedSubquery { related, op, .. } => {
                self.exists(related, *op == ExistsOp::NotExists, table, place)
            }
        }
    }

    fn members(
        &self,
        conditions: &[Condition],
        table: &Arc<Table>,
        place: Place,
    ) -> Result<Vec<Filter>, Error> {
        let below = place.below(true);
        conditions
            .iter()
            .map(|condition| self.filter(condition, table, below))
            .collect()
    }

    /// An EXISTS: its `orderBy` and any limit but 0 mean nothing, its `related` brings nothing.
    fn exists(
        &self,
        child: &CorrelatedSubquery,
        negated: bool,
        table: &Arc<Table>,
        place: Place,
    ) -> Result<Filter, Error> {
        let below = place.below(!negated && child.system != Some(System::Permissions));
        let mut draft = self.node(&child.subquery, below)?;
        if draft.limit == Some(0) || matches!(draft.filter, Filter::Const(false)) {
            return Ok(Filter::Const(negated));
        }
        draft.limit = Some(WITNESSES);
        draft.order = RowOrder::complete(&draft.table, &[], &draft.key);
        Ok(Filter::Exists {
            negated,
            synced: below.synced,
            link: Box::new(link(table, &child.correlation, draft)?),
        })
    }

    fn table(&self, name: &str) -> Result<Arc<Table>, Error> {
        if let Some(table) = self.catalog.table(name) {
            return Ok(table.clone());
        }
        let unsynced = self.catalog.unsynced().iter().find(|t| t.name == name);
        Err(match unsynced {
            Some(table) => Error::UnsyncedTable {
                table: table.name.clone(),
                reason: table.reason.clone(),
            },
            None => Error::UnknownTable(name.to_owned()),
        })
    }

    /// The key that clients know the table's rows by: theirs if they declared one.
    pub(crate) fn key(&self, table: &Table) -> Result<Vec<usize>, Error> {
        match self.keys.get(&table.name) {
            Some(columns) if !columns.is_empty() => {
                columns.iter().map(|name| column(table, name)).collect()
            }
            _ => Ok(table.key.clone()),
        }
    }
}

/// An AND (`all`) or OR of conditions, in canonical form.
fn junction(members: Vec<Filter>, all: bool) -> Filter {
    let mut flat = Vec::with_capacity(members.len());
    for member in members {
        match member {
            Filter::All(inner) if all => flat.extend(inner),
            Filter::Any(inner) if !all => flat.extend(inner),
            Filter::Const(truth) if truth == all => {}
            Filter::Const(truth) => return Filter::Const(truth),
            other => flat.push(other),
        }
    }
    let mut flat = canonical::sorted_filters(flat);
    match (flat.len(), all) {
        (0, _) => Filter::Const(all),
        (1, _) => flat.swap_remove(0),
        (_, true) => Filter::All(flat),
        (_, false) => Filter::Any(flat),
    }
}

fn row_order(table: &Table, wanted: Option<&[Ordering]>, key: &[usize]) -> Result<RowOrder, Error> {
    let columns = wanted
        .unwrap_or_default()
        .iter()
        .map(|Ordering(name, direction)| Ok((column(table, name)?, *direction)))
        .collect::<Result<Vec<(usize, Direction)>, Error>>()?;
    Ok(RowOrder::complete(table, &columns, key))
}

/// The start in the decisive columns; a column the bound does not name counts as null.
fn start(table: &Table, bound: &Bound, order: &RowOrder) -> Result<Start, Error> {
    for name in bound.row.keys() {
        column(table, name)?;
    }
    let value = |(at, _): &(usize, Direction)| {
        let column = table.columns.get(*at)?;
        let json = bound.row.get(&column.name)?;
        Some(bind_to_column(column, Value::from(json)))
    };
    let values = order
        .decisive()
        .iter()
        .map(|ordering| value(ordering).unwrap_or(Value::Null))
        .collect();
    Ok(Start {
        order: order.decisive().into(),
        values,
        exclusive: bound.exclusive,
    })
}

fn whole_limit(table: &Table, limit: f64) -> Result<usize, Error> {
    if !(limit >= 0.0 && limit.fract() == 0.0) {
        return Err(invalid(
            table,
            format!("limit {limit} is not a whole number of at least 0"),
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and not negative, and a cast of more than usize::MAX saturates"
    )]
    Ok(limit as usize)
}

fn link(parent: &Table, correlation: &Correlation, draft: Draft) -> Result<Link, Error> {
    let (parents, children) = (&correlation.parent_field, &correlation.child_field);
    if parents.is_empty() || parents.len() != children.len() {
        return Err(invalid(
            &draft.table,
            "a correlation needs as many parent columns as child columns, and at least one".into(),
        ));
    }
    let mut pairs = parents
        .iter()
        .zip(children)
        .map(|(of_parent, of_child)| {
            Ok((column(&draft.table, of_child)?, column(parent, of_parent)?))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    pairs.sort_unstable();
    pairs.dedup();
    let (child, parent) = pairs.into_iter().unzip();
    Ok(Link {
        parent,
        child,
        draft,
    })
}

/// Position of a column the query names.
pub(crate) fn column(table: &Table, name: &str) -> Result<usize, Error> {
    table.column(name).ok_or_else(|| Error::UnknownColumn {
        table: table.name.clone(),
        column: name.to_owned(),
        note: table
            .unsynced_columns
            .iter()
            .find(|(unsynced, _)| unsynced == name)
            .map_or_else(String::new, |(_, reason)| format!(": {reason}")),
    })
}

pub(crate) fn invalid(table: &Table, problem: String) -> Error {
    Error::Invalid {
        table: table.name.clone(),
        problem,
    }
}
