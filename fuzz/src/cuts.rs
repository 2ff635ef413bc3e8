//! The same bytes in other packets.

/// Cuts `input` into packets whose sizes follow from `seed`: 0 is one packet for each octet, 255 a
/// single packet, and anything else a mixture with many small ones.
pub fn cut(input: &[u8], seed: u8) -> Vec<&[u8]> {
    match seed {
        0 => input.chunks(1).collect(),
        255 => vec![input],
        _ => {
            let mut random = u32::from(seed).wrapping_mul(0x9E37_79B9);
            let mut rest = input;
            let mut packets = Vec::new();
            while !rest.is_empty() {
                // Marsaglia's xorshift: cheap, and the same on every machine.
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                let wanted = if random & 1 == 0 { random >> 8 & 3 } else { random >> 8 & 63 };
                let (packet, behind) = rest.split_at(rest.len().min(wanted as usize + 1));
                packets.push(packet);
                rest = behind;
            }
            packets
        }
    }
}
