//! The channel binding of SCRAM: a hash of the server's certificate (RFC 5929, 4.1).

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// `tls-server-end-point` of a DER certificate: its hash, by the hash function of its signature;
/// `None` where the signature has none (Ed25519) or is not known here.
pub(crate) fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_hash(certificate)?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

/// Hash function of the certificate's signature. MD5 and SHA-1 count as SHA-256, as the RFC says.
fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (_to_be_signed, rest) = element(outer, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (oid, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    if let Some(kind) = oid.strip_prefix(RSA) {
        return match kind {
            [4 | 5 | 11] => Some(&SHA256),
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            _ => None,
        };
    }
    match oid.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&SHA256),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

/// Contents of the DER element of this tag at the start of `der`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        let length = digits
            .iter()
            .fold(0_usize, |length, digit| (length << 8) | usize::from(*digit));
        (length, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut algorithm = vec![OBJECT_IDENTIFIER, u8::try_from(oid.len()).unwrap()];
        algorithm.extend(oid);
        let mut inner = vec![
            SEQUENCE,
            0,
            SEQUENCE,
            u8::try_from(algorithm.len()).unwrap(),
        ];
        inner.extend(algorithm);
        let mut outer = vec![SEQUENCE, 0x81, u8::try_from(inner.len()).unwrap()];
        outer.extend(inner);
        outer
    }

    #[test]
    fn the_hash_is_that_of_the_signature_but_never_sha1() {
        let sha1 = certificate(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 5]);
        assert_eq!(end_point_hash(&sha1).unwrap().len(), 32);
        let ecdsa384 = certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 3]);
        assert_eq!(end_point_hash(&ecdsa384).unwrap().len(), 48);
        let ed25519 = certificate(&[0x2b, 0x65, 0x70]);
        assert_eq!(end_point_hash(&ed25519), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = end_point_hash(&bytes);
        }
    }
}
