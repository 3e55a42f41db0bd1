//! The other end of a probe: what a living host answers to one. For wires whose hosts exist only in this process, and for
//! one process that plays a whole rack.

/// How a port of an emulated host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// A program listens.
    Listens,
    /// Nobody listens: the kernel refuses.
    Closed,
    /// The kernel is silent.
    Hangs,
}

/// What a host with a living kernel answers to a frame, if it is a probe: ARP request, echo request or SYN.
#[must_use]
pub fn answer(frame: &[u8], port: impl Fn(u16) -> Port) -> Option<Vec<u8>> {
    let mut reply = frame.to_vec();
    match (frame.get(12..14)?, frame.get(20..22)?, *frame.get(23)?) {
        ([8, 6], [0, 1], _) => {
            let (asker, target) = (frame.get(22..32)?, frame.get(38..42)?);
            let own = frame.get(..6)?;
            reply[21] = 2;
            reply[22..28].copy_from_slice(own);
            reply[28..32].copy_from_slice(target);
            reply.get_mut(32..42)?.copy_from_slice(asker);
        }
        ([8, 0], _, 1) if frame.get(34..36)? == [8, 0] => {
            reply[34] = 0;
            // One's complement: the type fell by 8 in the high byte, so the sum's complement rises by as much (RFC 1624).
            let sum = u32::from(u16::from_be_bytes([frame[36], *frame.get(37)?])) + 0x0800;
            let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).ok()?;
            reply[36..38].copy_from_slice(&folded.to_be_bytes());
        }
        ([8, 0], _, 6) if *frame.get(47)? == 0x02 => {
            let asked = u16::from_be_bytes([frame[36], frame[37]]);
            let sequence = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
            let (first, flags): (u32, u8) = match port(asked) {
                Port::Listens => (7_000, 0x12),
                Port::Closed => (0, 0x14),
                Port::Hangs => return None,
            };
            reply[34..36].copy_from_slice(&frame[36..38]);
            reply[36..38].copy_from_slice(&frame[34..36]);
            reply[38..42].copy_from_slice(&first.to_be_bytes());
            reply[42..46].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
            reply[47] = flags;
        }
        _ => return None,
    }
    if frame[12..14] == [8, 0] {
        reply[26..30].copy_from_slice(&frame[30..34]);
        reply[30..34].copy_from_slice(&frame[26..30]);
        // The sum of TCP is left as a network card that fills it in later would leave it: nobody checks it on the way back.
    }
    reply[..6].copy_from_slice(&frame[6..12]);
    reply[6..12].copy_from_slice(&frame[..6]);
    Some(reply)
}
