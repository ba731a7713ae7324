//! Reading the bodies of server messages.

use bytes::{Buf, Bytes};

use crate::error::ServerError;
use crate::{Error, Result};

/// Reads the fields of one message, and never beyond its end.
pub(crate) struct Fields(pub(crate) Bytes);

impl Fields {
    fn need(&self, length: usize) -> Result<()> {
        if self.0.len() < length {
            return Err(Error::Protocol("a message ends too early".into()));
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    pub(crate) fn i16(&mut self) -> Result<i16> {
        self.need(2)?;
        Ok(self.0.get_i16())
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        self.need(4)?;
        Ok(self.0.get_i32())
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        self.need(8)?;
        Ok(self.0.get_i64())
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    /// The next `length` bytes, shared with the message.
    pub(crate) fn bytes(&mut self, length: i32) -> Result<Bytes> {
        let length =
            usize::try_from(length).map_err(|_| Error::Protocol("a length is negative".into()))?;
        self.need(length)?;
        Ok(self.0.split_to(length))
    }

    /// Passes over the next `length` bytes, and says how many these are.
    pub(crate) fn skip(&mut self, length: i32) -> Result<usize> {
        let length =
            usize::try_from(length).map_err(|_| Error::Protocol("a length is negative".into()))?;
        self.need(length)?;
        self.0.advance(length);
        Ok(length)
    }

    /// A string that ends with a zero byte.
    pub(crate) fn text(&mut self) -> Result<String> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| Error::Protocol("a string does not end".into()))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        // Messages of a server in another language may not be UTF-8 before log-in.
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The body of an `ErrorResponse`.
    pub(crate) fn server_error(mut self) -> Result<ServerError> {
        let mut error = ServerError::default();
        loop {
            match self.u8()? {
                0 => return Ok(error),
                b'C' => error.code = self.text()?,
                b'M' => error.message = self.text()?,
                b'D' => error.detail = self.text()?,
                b'H' => error.hint = self.text()?,
                _ => drop(self.text()?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_response_keeps_its_sqlstate_and_hint() {
        let body = Bytes::from_static(b"SFATAL\0C28P01\0Mno\0Hask\0\0");
        let error = Fields(body).server_error().unwrap();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("28P01", "no")
        );
        assert_eq!(error.hint, "ask");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, length: i32) {
            let _ = Fields(Bytes::from(bytes.clone())).server_error();
            let _ = Fields(Bytes::from(bytes.clone())).bytes(length);
            let _ = Fields(Bytes::from(bytes)).text();
        }
    }
}
