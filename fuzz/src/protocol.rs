//! What clients send.

use arbitrary::Unstructured;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kelvin_protocol::{Ast, Cookie, InitPayload, Up, UpQueryOp};

/// A text frame of a client: it is understood or an error, and a query in it is the same after it
/// was written out again.
pub fn up(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let patch = match Up::parse(text) {
        Ok(Up::InitConnection(init)) => init.desired_queries_patch,
        Ok(Up::ChangeDesiredQueries(change)) => change.desired_queries_patch,
        _ => return,
    };
    for op in patch {
        let UpQueryOp::Put { ast: Some(ast), .. } = op else {
            continue;
        };
        let Ok(ast) = serde_json::from_str::<Ast>(ast.get()) else {
            continue;
        };
        let written = serde_json::to_string(&ast).expect("a query can be written");
        let again: Ast = serde_json::from_str(&written).expect("and read again");
        assert_eq!(ast, again);
    }
}

/// The header with a client's first message. After an odd first byte the rest is the header; after
/// an even one it is what the header encodes, and then only that can be wrong.
pub fn init_payload(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    if kind & 1 == 1 {
        if let Ok(header) = std::str::from_utf8(rest) {
            let _ = InitPayload::decode(header);
        }
        return;
    }
    let header = STANDARD
        .encode(rest)
        .replace('+', "%2B")
        .replace('/', "%2f")
        .replace('=', "%3D");
    if let Err(problem) = InitPayload::decode(&header) {
        assert!(problem.contains("no JSON object"), "{problem}");
    }
}

/// A cookie: as a text it is refused or printed back as it was; as two times three numbers, the
/// order of the texts is the order of the cookies.
pub fn cookie(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(cookie) = text.parse::<Cookie>()
    {
        assert_eq!(cookie.to_string(), text);
    }
    let mut input = Unstructured::new(data);
    let mut next = || -> arbitrary::Result<Cookie> {
        Ok(Cookie {
            epoch: input.arbitrary()?,
            version: input.arbitrary()?,
            config: input.arbitrary()?,
        })
    };
    let (Ok(a), Ok(b)) = (next(), next()) else {
        return;
    };
    assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
    assert_eq!(a.to_string().parse::<Cookie>().expect("ours"), a);
}
