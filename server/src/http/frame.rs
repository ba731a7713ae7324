//! WebSocket frames on the wire (RFC 6455 §5), without I/O.

/// Longest header a frame can have.
pub(super) const MAX_HEAD: usize = 14;
/// Longest payload of a control frame.
pub(super) const MAX_CONTROL: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpCode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl OpCode {
    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// Header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether the message ends with it.
    pub(super) fin: bool,
    /// What it is.
    pub(super) opcode: OpCode,
    /// Length of the payload that follows, bytes.
    pub(super) length: u64,
    /// Key of the payload's mask.
    pub(super) mask: [u8; 4],
}

impl Head {
    /// Reads a header from the beginning of `buffer`; with it comes its own length. `None` if there
    /// is not enough yet.
    ///
    /// # Errors
    /// What the client did wrong.
    pub(super) fn parse(buffer: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let &[first, second, ref rest @ ..] = buffer else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err("reserved bits are set");
        }
        let fin = first & 0x80 != 0;
        let opcode = match first & 0x0f {
            0 => OpCode::Continuation,
            1 => OpCode::Text,
            2 => OpCode::Binary,
            8 => OpCode::Close,
            9 => OpCode::Ping,
            10 => OpCode::Pong,
            _ => return Err("unknown opcode"),
        };
        if second & 0x80 == 0 {
            return Err("a client's frame is not masked");
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL) {
            return Err("a control frame is fragmented or too long");
        }
        let (length, rest, extra) = match short {
            126 => match rest.split_first_chunk::<2>() {
                Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), rest, 2),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest, 8),
                None => return Ok(None),
            },
            short => (u64::from(short), rest, 0),
        };
        let Some(mask) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let head = Self {
            fin,
            opcode,
            length,
            mask: *mask,
        };
        Ok(Some((head, 2 + extra + 4)))
    }
}

/// Takes the mask off a payload, or puts it on.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    // Eight bytes at a time; the compiler makes vector code of it.
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends the header of a server's frame, which is whole and not masked.
pub(super) fn write_head(out: &mut impl bytes::BufMut, opcode: OpCode, length: usize) {
    out.put_u8(0x80 | opcode.bits());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length), _) if length < 126 => out.put_u8(length),
        (_, Ok(length)) => {
            out.put_u8(126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_text_frame_is_read() {
        let mut frame = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d];
        frame.extend([0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        let (head, at) = Head::parse(&frame).unwrap().unwrap();
        assert_eq!(
            (head.fin, head.opcode, head.length),
            (true, OpCode::Text, 5)
        );
        let payload = frame.get_mut(at..).unwrap();
        unmask(payload, head.mask);
        assert_eq!(payload, b"Hello");
    }

    #[test]
    fn incomplete_headers_wait_and_broken_ones_are_errors() {
        for part in [
            &[][..],
            &[0x81],
            &[0x81, 0xfe, 0],
            &[0x81, 0xff, 0, 0, 0],
            &[0x81, 0x81, 1],
        ] {
            assert_eq!(Head::parse(part), Ok(None));
        }
        for broken in [
            [0xc1, 0x80],
            [0x83, 0x80],
            [0x81, 0x00],
            [0x09, 0x80],
            [0x89, 0xfe],
        ] {
            assert!(Head::parse(&broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_length_beyond_every_bound_is_read_without_harm() {
        let mut frame = vec![0x82, 0xff];
        frame.extend(u64::MAX.to_be_bytes());
        frame.extend([0; 4]);
        assert_eq!(Head::parse(&frame).unwrap().unwrap().0.length, u64::MAX);
    }

    #[test]
    fn unmasking_works_at_every_length() {
        for length in 0..40_usize {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut masked = plain.clone();
            unmask(&mut masked, [1, 2, 3, 4]);
            let by_hand: Vec<u8> = plain
                .iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(a, b)| a ^ b)
                .collect();
            assert_eq!(masked, by_hand);
        }
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, size) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut out = Vec::new();
            write_head(&mut out, OpCode::Binary, length);
            assert_eq!(out.len(), size);
        }
    }
}
