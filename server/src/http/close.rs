//! Close frames.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::frame::MAX_CONTROL;

/// Why a socket is closed. Clients tell apart only [`CloseCode::TOO_BIG`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// All is well.
    pub const NORMAL: Self = Self(1000);
    /// The client broke the protocol, or its request was bad.
    pub const PROTOCOL: Self = Self(1002);
    /// Text that is not UTF-8.
    pub const NOT_UTF8: Self = Self(1007);
    /// A bound of the server was overstepped.
    pub const POLICY: Self = Self(1008);
    /// A message is too long. The client gives up its client group.
    pub const TOO_BIG: Self = Self(1009);
    /// Authentication failed.
    pub const AUTH: Self = Self(3000);

    /// Whether a peer may send this code.
    pub(super) fn is_allowed(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a close frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Close {
    /// The code; without one the peer sees 1005.
    pub code: Option<CloseCode>,
    /// For people; cut to 123 bytes when sent.
    pub reason: String,
}

impl Close {
    /// With a code and a reason.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            reason: reason.into(),
        }
    }

    /// Payload of the frame.
    pub(super) fn payload(&self) -> Bytes {
        let Some(code) = self.code else {
            return Bytes::new();
        };
        let mut payload = BytesMut::with_capacity(MAX_CONTROL);
        payload.put_u16(code.0);
        payload.put_slice(cut(&self.reason, MAX_CONTROL - 2).as_bytes());
        payload.freeze()
    }

    /// Reads the payload of a peer's frame.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, (CloseCode, &'static str)> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return match payload {
                [] => Ok(Self::default()),
                _ => Err((CloseCode::PROTOCOL, "a close frame is one byte long")),
            };
        };
        let code = CloseCode(u16::from_be_bytes(*code));
        if !code.is_allowed() {
            return Err((
                CloseCode::PROTOCOL,
                "a close frame has a code nobody may send",
            ));
        }
        match std::str::from_utf8(reason) {
            Ok(reason) => Ok(Self::new(code, reason)),
            Err(_) => Err((CloseCode::NOT_UTF8, "a close reason is not UTF-8")),
        }
    }
}

/// The longest beginning of `text` that fits into `bytes` and ends between characters.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Close::new(CloseCode::PROTOCOL, "ä".repeat(100));
        let payload = close.payload();
        assert_eq!(payload.len(), 2 + 122);
        assert_eq!(Close::parse(&payload).unwrap().reason, "ä".repeat(61));
        let short = Close::new(CloseCode::AUTH, "no");
        assert_eq!(Close::parse(&short.payload()), Ok(short));
    }

    #[test]
    fn broken_close_frames_are_told_apart() {
        assert_eq!(Close::parse(&[]), Ok(Close::default()));
        for payload in [&[3][..], &1005_u16.to_be_bytes(), &999_u16.to_be_bytes()] {
            assert_eq!(Close::parse(payload).unwrap_err().0, CloseCode::PROTOCOL);
        }
        assert_eq!(
            Close::parse(&[3, 232, 0xff]).unwrap_err().0,
            CloseCode::NOT_UTF8
        );
    }
}
