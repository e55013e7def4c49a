//! Opus, for which Symphonia has containers and no decoder.

use opus_pure::OpusDecoder;
use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::packet::Packet as CodedPacket;

use super::source::Packet;

/// The rate at which Opus is decoded: it knows no other from the inside. A container's may be that of the microphone.
const RATE_HZ: u32 = 48_000;
/// The longest packet: 120 ms.
const FRAMES_MAX: usize = 5_760;

pub(super) struct Opus {
    decoder: OpusDecoder,
    channels: usize,
    /// Samples of the encoder's delay that are still to be dropped.
    delay: u64,
    buffer: Vec<f32>,
}

impl Opus {
    pub(super) fn new(codec: &AudioCodecParameters) -> Result<Self, String> {
        let head = codec.extra_data.as_deref().unwrap_or_default();
        let head = head.strip_prefix(b"OpusHead").unwrap_or(head);
        let channels = match codec.channels.as_ref().map(Channels::count) {
            Some(channels) => channels,
            None => head.get(1).map_or(1, |&channels| channels.into()),
        };
        if !(1..=2).contains(&channels) {
            return Err(format!("Opus with {channels} channels"));
        }
        let delay = delay(head);
        let decoder = OpusDecoder::new(RATE_HZ.cast_signed(), channels);
        let decoder = decoder.map_err(|error| format!("Opus: {error}"))?;
        let buffer = vec![0.0; FRAMES_MAX * channels];
        Ok(Self { decoder, channels, delay, buffer })
    }

    pub(super) fn rate_hz(&self) -> u32 {
        RATE_HZ
    }

    /// False for a packet that cannot be decoded.
    pub(super) fn decode(&mut self, coded: &CodedPacket, packet: &mut Packet) -> bool {
        let Ok(frames) = self.decoder.decode(&coded.data, FRAMES_MAX, &mut self.buffer) else {
            return false;
        };
        packet.start(RATE_HZ, self.channels);
        packet.interleaved.extend_from_slice(&self.buffer[..frames * self.channels]);
        let dropped = self.delay.min(frames as u64);
        self.delay -= dropped;
        packet.keep(dropped, (frames as u64 - dropped).saturating_sub(coded.trim_end.get()));
        true
    }
}

/// The encoder's delay in samples, of a header without its name. That of MP4 has the version 0 and the other byte order.
fn delay(head: &[u8]) -> u64 {
    let Some(&[version, _, first, second]) = head.first_chunk() else { return 0 };
    let bytes = [first, second];
    u64::from(if version == 0 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_read_in_the_byte_order_of_its_container() {
        assert_eq!(delay(&[1, 2, 0x38, 0x01, 0]), 312);
        assert_eq!(delay(&[0, 2, 0x01, 0x38, 0]), 312);
        assert_eq!(delay(&[1]), 0);
    }
}
