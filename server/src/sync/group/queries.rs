//! Queries of a group: what its clients ask for, and what each query stands for.

use std::sync::Arc;

use kelvin_ivm::{ClientKeys, Plan};
use kelvin_protocol::{
    Ast, ChangeDesiredQueries, DeleteClients, ErrorBody, ErrorKind, ErroredQuery,
};
use kelvin_storage::Catalog;

use super::{Group, GroupMessage};
use crate::sync::poke::PokeBody;
use crate::sync::record::{Definition, QueryRecord};
use crate::sync::session::SessionId;
use crate::sync::transform::{Job, Transformed, Which, transform};

impl Group {
    /// A client adds and drops queries.
    pub(super) async fn change_desired_queries(
        &mut self,
        id: SessionId,
        body: ChangeDesiredQueries,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Some(init) = &mut session.init {
            // Not admitted yet: it counts as part of the first message.
            init.desired_queries_patch
                .extend(body.desired_queries_patch);
            return;
        }
        if !session.is_member() {
            return;
        }
        let client = session.client_id.clone();
        let (version, limits) = (self.version, self.services.limits);
        let Some(record) = &mut self.record else {
            return;
        };
        match record.apply_desires(&client, body.desired_queries_patch, version, limits) {
            Ok(patches) => self.poke_desires(patches),
            Err(body) => return self.fail_session(id, body),
        }
        if !self.transform(id, Which::Missing) {
            self.reconcile().await;
        }
    }

    /// A client names clients that are gone.
    pub(super) fn delete_clients(&mut self, id: SessionId, body: &DeleteClients) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let named = body.client_ids.clone().unwrap_or_default();
        if named.contains(&session.client_id) {
            let message = "A client cannot delete itself.";
            return self.fail_session(id, ErrorBody::new(ErrorKind::InvalidMessage, message));
        }
        if named.is_empty() {
            return;
        }
        let caller = Arc::clone(&session.caller);
        let version = self.version;
        if let Some(record) = &mut self.record {
            let patches = record.forget_clients(&named, version);
            self.poke_desires(patches);
        }
        self.services
            .mutation_results_of_deleted(&self.id, &named, &caller);
        self.announce_deleted(named);
    }

    /// Starts transforming queries with the credentials of a session. Returns whether there was
    /// anything to transform; the answer comes as a message.
    pub(super) fn transform(&self, id: SessionId, which: Which) -> bool {
        let (Some(session), Some(record)) = (self.sessions.get(&id), &self.record) else {
            return false;
        };
        let needed = |(hash, query): &(&String, &QueryRecord)| match (&query.definition, which) {
            (Definition::Internal(_), Which::All | Which::Missing) => query.current().is_none(),
            (Definition::Internal(_), _) => false,
            (_, Which::All) => true,
            (Definition::Custom { .. }, Which::Custom) => true,
            (Definition::Client(_), Which::Client) => true,
            (_, Which::Missing) => !self.targets.contains_key(*hash) && query.current().is_none(),
            (_, _) => false,
        };
        let expired = record.expired();
        let queries: Vec<(String, Definition)> = record
            .live_queries()
            .filter(|(hash, _)| !expired.contains(hash))
            .filter(needed)
            .map(|(hash, query)| (hash.clone(), query.definition.clone()))
            .collect();
        if queries.is_empty() && which != Which::All {
            return false;
        }
        let job = Job {
            session: id,
            revision: session.revision,
            queries,
            caller: Arc::clone(&session.caller),
            auth: session.auth.clone(),
        };
        let (services, to_self) = (Arc::clone(&self.services), self.to_self.clone());
        tokio::spawn(async move {
            let transformed = transform(&services, job).await;
            if let Some(group) = to_self.upgrade() {
                let _ = group.send(GroupMessage::Transformed(transformed)).await;
            }
        });
        true
    }

    /// Transformed queries are there.
    pub(super) async fn transformed(&mut self, transformed: Transformed) {
        let answers = match transformed.result {
            Ok(answers) => answers,
            Err(body) => return self.fail_session(transformed.session, body),
        };
        let mut errors: Vec<ErroredQuery> = Vec::new();
        for answer in answers {
            let known = self
                .record
                .as_ref()
                .is_some_and(|record| record.live_queries().any(|(hash, _)| *hash == answer.hash));
            if !known {
                continue;
            }
            let compiled = answer.ast.and_then(|ast| match self.compile(&ast) {
                Ok(_) => Ok(ast),
                Err(message) => Err(self.query_error(&answer.hash, message)),
            });
            match compiled {
                Ok(ast) => {
                    self.targets.insert(answer.hash, ast);
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            let hashes: Vec<String> = errors.iter().map(|error| error.id.clone()).collect();
            self.withdraw_errored(&hashes, &errors, PokeBody::default());
        }
        self.reconcile().await;
    }

    fn query_error(&self, hash: &str, message: String) -> ErroredQuery {
        let query = self
            .record
            .as_ref()
            .and_then(|record| record.queries.get(hash));
        ErroredQuery {
            error: "app",
            id: hash.to_owned(),
            name: query.map_or("query", QueryRecord::name).to_owned(),
            message: Some(message),
            details: None,
        }
    }

    /// The keys the group's clients identify rows by.
    pub(in crate::sync) fn client_keys(&self) -> ClientKeys {
        let tables = self
            .record
            .iter()
            .flat_map(|record| &record.client_schema.tables);
        tables
            .map(|(name, table)| (name.clone(), table.primary_key.clone()))
            .collect()
    }

    /// The plan of a transformed AST, for the tables as they are now.
    pub(super) fn compile(&mut self, ast: &Arc<str>) -> Result<Arc<Plan>, String> {
        let catalog = self.services.replica.catalog();
        let plan = self.compile_for(ast, &catalog)?;
        self.compiled.insert(Arc::clone(ast), Arc::clone(&plan));
        Ok(plan)
    }

    /// The plan of a transformed AST, for the tables of a catalog.
    pub(super) fn compile_for(
        &self,
        ast: &Arc<str>,
        catalog: &Arc<Catalog>,
    ) -> Result<Arc<Plan>, String> {
        let known = self.compiled.get(ast);
        if let Some(plan) = known.filter(|plan| plan.is_current(catalog)) {
            return Ok(Arc::clone(plan));
        }
        let parsed: Ast = serde_json::from_str(ast).map_err(|error| error.to_string())?;
        Plan::compile(&parsed, catalog, &self.client_keys())
            .map(Arc::new)
            .map_err(|error| error.to_string())
    }
}
