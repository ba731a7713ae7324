//! `inet`, `cidr`, `macaddr` and `macaddr8`, as PostgreSQL prints them.

use std::fmt::Write;

use super::DecodeError;

const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// Prints an `inet` or `cidr` from its binary form. A `cidr` always shows its mask, an `inet` only
/// where it is not that of a host.
pub(super) fn inet(bytes: &[u8]) -> Result<String, DecodeError> {
    let malformed = DecodeError("an inet is malformed");
    let [family, bits, is_cidr, length, address @ ..] = bytes else {
        return Err(malformed);
    };
    if usize::from(*length) != address.len() {
        return Err(malformed);
    }
    let (mut text, host_bits) = match (*family, address.len()) {
        (IPV4, 4) => (dotted(address), 32),
        (IPV6, 16) => (ipv6(address), 128),
        _ => return Err(malformed),
    };
    if *is_cidr != 0 || *bits != host_bits {
        // Writing to a String does not fail.
        let _ = write!(text, "/{bits}");
    }
    Ok(text)
}

fn dotted(bytes: &[u8]) -> String {
    let parts: Vec<_> = bytes.iter().map(u8::to_string).collect();
    parts.join(".")
}

/// Groups in hexadecimal, the first longest run of at least two zero groups left out; addresses
/// that carry an IPv4 address show it dotted.
fn ipv6(bytes: &[u8]) -> String {
    let groups: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    let (start, length) = longest_zero_run(&groups);
    let carries_ipv4 = start == 0
        && (length == 6
            || (length == 7 && groups.last() != Some(&1))
            || (length == 5 && groups.get(5) == Some(&0xffff)));
    let mut text = String::new();
    for (at, group) in groups.iter().enumerate() {
        if length > 0 && (start..start + length).contains(&at) {
            if at == start {
                text.push(':');
            }
            continue;
        }
        if at > 0 {
            text.push(':');
        }
        if at == 6 && carries_ipv4 {
            text.push_str(&dotted(bytes.get(12..).unwrap_or_default()));
            return text;
        }
        let _ = write!(text, "{group:x}");
    }
    if length > 0 && start + length == groups.len() {
        text.push(':');
    }
    text
}

/// Start and length of the first longest run of zeros; length 0 where none has two.
fn longest_zero_run(groups: &[u16]) -> (usize, usize) {
    let (mut best, mut start) = ((0, 0), 0);
    for (at, group) in groups.iter().enumerate() {
        if *group != 0 {
            start = at + 1;
        } else if at + 1 - start > best.1 {
            best = (start, at + 1 - start);
        }
    }
    if best.1 < 2 { (0, 0) } else { best }
}

/// Prints a `macaddr` or `macaddr8` from its binary form.
pub(super) fn macaddr(bytes: &[u8]) -> String {
    let parts: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_mask_but_a_cidr_always_has_one() {
        assert_eq!(inet(&[2, 32, 0, 4, 10, 0, 0, 1]).unwrap(), "10.0.0.1");
        assert_eq!(inet(&[2, 24, 0, 4, 10, 0, 0, 1]).unwrap(), "10.0.0.1/24");
        assert_eq!(inet(&[2, 32, 1, 4, 10, 0, 0, 1]).unwrap(), "10.0.0.1/32");
        assert!(inet(&[2, 32, 0, 4, 10]).is_err());
    }

    #[test]
    fn ipv6_leaves_out_the_longest_run_of_zeros() {
        let print = |groups: [u16; 8]| {
            let bytes: Vec<u8> = groups
                .iter()
                .flat_map(|group| group.to_be_bytes())
                .collect();
            ipv6(&bytes)
        };
        assert_eq!(print([0; 8]), "::");
        assert_eq!(print([0, 0, 0, 0, 0, 0, 0, 1]), "::1");
        assert_eq!(
            print([0x2001, 0xdb8, 0, 0, 1, 0, 0, 1]),
            "2001:db8::1:0:0:1"
        );
        assert_eq!(print([1, 0, 0, 0, 0, 0, 0, 0]), "1::");
        assert_eq!(print([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]), "::ffff:10.0.0.1");
        assert_eq!(print([1, 0, 2, 3, 4, 5, 6, 7]), "1:0:2:3:4:5:6:7");
    }
}
