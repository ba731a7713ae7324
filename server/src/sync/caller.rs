//! On whose behalf the application's endpoints are called, from what a connection says.

use std::sync::Arc;

use kelvin_protocol::InitConnection;

use crate::app_api::{Caller, ClientTarget};
use crate::auth::Auth;
use crate::http::Connect;

/// The caller behind a connection, before its first message.
#[must_use]
pub fn of_connection(connect: &Connect, auth: Option<&Auth>) -> Caller {
    Caller {
        user_id: connect.params.user_id.clone(),
        token: auth.map(|auth| auth.raw().to_owned()),
        request: Arc::new(connect.request.clone()),
        query: ClientTarget::default(),
        mutate: ClientTarget::default(),
    }
}

/// Takes over the URLs and headers a client asks for.
pub fn set_endpoints(caller: &mut Caller, init: &InitConnection) {
    caller.query = ClientTarget {
        url: init.user_query_url.clone(),
        headers: init.user_query_headers.clone().unwrap_or_default(),
    };
    caller.mutate = ClientTarget {
        url: init.user_push_url.clone(),
        headers: init.user_push_headers.clone().unwrap_or_default(),
    };
}

/// Takes over new credentials.
pub fn set_auth(caller: &mut Caller, auth: Option<&Auth>) {
    caller.token = auth.map(|auth| auth.raw().to_owned());
}
