//! Several channels to one.

use gpu_tasks::WarningCode;

use super::source::Packet;
use crate::output::Remarks;

/// The mix is so far below the loudest channel, in power, that channels cancel each other out, or that one of many is in use: 20 dB.
const CANCELLED_RATIO: f64 = 100.0;

/// What becomes of the channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mixing {
    /// Their average.
    #[default]
    Average,
    /// One of them, numbered from 0.
    Only(usize),
}

impl Mixing {
    /// Adds the packet's samples to `mono`.
    pub(super) fn mix(self, packet: &Packet, mono: &mut Vec<f32>) {
        let frames = packet.interleaved.chunks_exact(packet.channels.max(1));
        match (self, packet.channels) {
            (_, 1) => mono.extend_from_slice(&packet.interleaved),
            (Self::Only(channel), channels) => {
                mono.extend(frames.map(|frame| frame[channel.min(channels - 1)]));
            }
            #[expect(clippy::cast_precision_loss, reason = "channels are few")]
            (Self::Average, channels) => {
                let share = 1.0 / channels as f32;
                mono.extend(frames.map(|frame| frame.iter().sum::<f32>() * share));
            }
        }
    }

    pub(super) fn remark(self, channels: usize, remarks: &mut Remarks) {
        if let Self::Only(channel) = self {
            let channel = channel + 1;
            let message = format!(
                "its {channels} channels cancel each other out when they are mixed: channel {channel} alone was used"
            );
            remarks.warn(WarningCode::AudioChannels, message);
        }
    }
}

/// The power of each channel and of their mix, without what is constant in them.
#[derive(Debug, Default)]
pub(super) struct Power {
    mix: Sum,
    channels: Vec<Sum>,
}

impl Power {
    pub(super) fn add(&mut self, packet: &Packet, mixed: &[f32]) {
        if packet.channels < 2 {
            return;
        }
        self.channels.resize(self.channels.len().max(packet.channels), Sum::default());
        for frame in packet.interleaved.chunks_exact(packet.channels) {
            self.channels.iter_mut().zip(frame).for_each(|(sum, sample)| sum.add(*sample));
        }
        mixed.iter().for_each(|sample| self.mix.add(*sample));
    }

    /// The loudest channel, where the mix of all is far below it.
    pub(super) fn cancelled(&self) -> Option<usize> {
        let powers = self.channels.iter().map(Sum::power).enumerate();
        let (loudest, power) = powers.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (power > 0.0 && self.mix.power() < power / CANCELLED_RATIO).then_some(loudest)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    samples: f64,
    squares: f64,
    count: f64,
}

impl Sum {
    fn add(&mut self, sample: f32) {
        let sample = f64::from(sample);
        self.samples += sample;
        self.squares += sample * sample;
        self.count += 1.0;
    }

    fn power(&self) -> f64 {
        let count = self.count.max(1.0);
        (self.squares / count - (self.samples / count).powi(2)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(channels: usize, frame: impl Fn(f32) -> Vec<f32>) -> Packet {
        let wave = (0..1_000_u16).map(|at| (f32::from(at) * 0.1).sin());
        Packet { interleaved: wave.flat_map(frame).collect(), channels, rate_hz: 8_000 }
    }

    fn cancelled(packet: &Packet) -> Option<usize> {
        let (mut power, mut mono) = (Power::default(), Vec::new());
        Mixing::Average.mix(packet, &mut mono);
        power.add(packet, &mono);
        power.cancelled()
    }

    #[test]
    fn channels_are_averaged_or_one_is_taken() {
        let packet = Packet { interleaved: vec![1.0, 0.0, 0.5, -0.5], channels: 2, rate_hz: 8_000 };
        let mixed = |mixing: Mixing| {
            let mut mono = Vec::new();
            mixing.mix(&packet, &mut mono);
            mono
        };
        assert_eq!(mixed(Mixing::Average), [0.5, 0.0]);
        assert_eq!(mixed(Mixing::Only(1)), [0.0, -0.5]);
        assert_eq!(mixed(Mixing::Only(9)), [0.0, -0.5]);
    }

    #[test]
    fn channels_that_cancel_each_other_out_are_found_whatever_is_constant_in_them() {
        assert_eq!(cancelled(&packet(2, |x| vec![x, -x])), Some(1));
        assert_eq!(cancelled(&packet(2, |x| vec![x * 0.9 + 0.1, -x + 0.1])), Some(1));
        assert_eq!(
            cancelled(&packet(16, |x| [vec![0.0; 5], vec![x], vec![0.0; 10]].concat())),
            Some(5)
        );
        assert_eq!(cancelled(&packet(2, |x| vec![x, 0.0])), None);
        assert_eq!(cancelled(&packet(6, |x| vec![0.0, 0.0, x, 0.0, 0.0, 0.0])), None);
        assert_eq!(cancelled(&packet(2, |_| vec![0.0, 0.0])), None);
        assert_eq!(cancelled(&packet(1, |x| vec![x])), None);
    }
}
