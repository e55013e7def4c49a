//! AAC in MP4, made here frame by frame: as phones record it, and HE-AAC, of which the plain core is read.

use gpu_inference::WarningCode;

use crate::audio::try_decode;

/// Samples of a frame, and what they are a second: HE-AAC says twice as many of both.
const FRAME: u32 = 1_024;
const RATE_HZ: u32 = 22_050;
/// Its index in AAC's list of rates, and that of the double.
const RATE: u32 = 7;
const DOUBLE_RATE: u32 = 4;
/// Kinds of sound: low complexity, HE-AAC, and HE-AAC v2.
const LOW_COMPLEXITY: u32 = 2;
const HIGH_EFFICIENCY: u32 = 5;
const HIGH_EFFICIENCY_2: u32 = 29;

/// Bits, the highest first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: u32, length: u32) -> &mut Self {
        self.0.extend((0..length).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            bits.iter().zip((0..8).rev()).map(|(&bit, at)| u8::from(bit) << at).sum()
        };
        self.0.chunks(8).map(byte).collect()
    }
}

/// A frame of one channel with a tone, and perhaps the upper half of the band as HE-AAC adds it.
fn frame(is_high_efficiency: bool) -> Vec<u8> {
    let mut bits = Bits::default();
    // A single channel, its gain; one long window with ten bands.
    bits.put(0, 3).put(0, 4).put(190, 8).put(0, 4).put(10, 6).put(0, 1);
    // Nine bands of nothing, and one in the first code, the gain of which is the channel's.
    bits.put(0, 4).put(9, 5).put(1, 4).put(1, 5).put(0, 1);
    // No pulses, noise shaping or gain control; four numbers: 0, 0, 0 and 1.
    bits.put(0, 3).put(0x14, 5);
    if is_high_efficiency {
        bits.put(6, 3).put(8, 4).put(13, 4).put(0, 30).put(0, 30);
    }
    bits.put(7, 3);
    bits.bytes()
}

/// How the sound is described to a decoder.
fn description(kind: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    match kind {
        HIGH_EFFICIENCY_2 | HIGH_EFFICIENCY => {
            bits.put(kind, 5).put(RATE, 4).put(1, 4).put(DOUBLE_RATE, 4).put(LOW_COMPLEXITY, 5)
        }
        _ => bits.put(kind, 5).put(RATE, 4).put(1, 4),
    };
    bits.put(0, 3).bytes()
}

fn atom(name: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = u32::try_from(content.len() + 8).unwrap();
    [&length.to_be_bytes(), &name[..], &content].concat()
}

/// With a version and flags of 0.
fn full(name: &[u8; 4], numbers: &[u32]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    atom(name, &[&[0; 4], &bytes])
}

/// An M4A of some frames, with the rate and length of a frame that its header says.
fn m4a(frames: &[Vec<u8>], description: &[u8], rate_hz: u32, frame_samples: u32) -> Vec<u8> {
    let count = u32::try_from(frames.len()).unwrap();
    let index = |data_at: u32| {
        let lists = [
            full(b"stts", &[1, count, frame_samples]),
            full(b"stsc", &[1, 1, count, 1]),
            full(b"stsz", &[&[0, count], &sizes(frames)[..]].concat()),
            full(b"stco", &[1, data_at]),
        ];
        moov(description, rate_hz, count * frame_samples, &lists.concat(), &[])
    };
    let data_at = u32::try_from(KIND.len() + index(0).len() + 16).unwrap();
    [atom(b"ftyp", &[KIND]), index(data_at), atom(b"mdat", &[&frames.concat()])].concat()
}

/// The same in fragments, each with a list of its own, behind a header that says this length.
fn fragmented(frames: &[Vec<u8>], length: u32) -> Vec<u8> {
    let lists = [b"stts", b"stsc"].map(|name| full(name, &[0]));
    let lists = [&lists.concat(), &full(b"stsz", &[0, 0])[..], &full(b"stco", &[0])].concat();
    let more = atom(b"mvex", &[&full(b"trex", &[1, 1, FRAME, 0, 0])]);
    let index = moov(&description(LOW_COMPLEXITY), RATE_HZ, length, &lists, &more);
    let mut bytes = [atom(b"ftyp", &[KIND]), index].concat();
    for (number, part) in (1..).zip(frames.chunks(16)) {
        let count = u32::try_from(part.len()).unwrap();
        // Places count from the fragment; a run has the place of its first frame, and the size of each.
        let head = atom(b"tfhd", &[&[0, 2, 0, 0], &1_u32.to_be_bytes()]);
        let begin = full(b"tfdt", &[(number - 1) * 16 * FRAME]);
        let fragment = |data_at: u32| {
            let numbers = [&[count, data_at], &sizes(part)[..]].concat();
            let numbers: Vec<u8> = numbers.iter().flat_map(|one| one.to_be_bytes()).collect();
            let run = atom(b"trun", &[&[0, 0, 2, 1], &numbers]);
            let track = atom(b"traf", &[&head, &begin, &run]);
            atom(b"moof", &[&full(b"mfhd", &[number]), &track])
        };
        let data_at = u32::try_from(fragment(0).len() + 8).unwrap();
        bytes.extend([fragment(data_at), atom(b"mdat", &[&part.concat()])].concat());
    }
    bytes
}

/// What the content of the first box is.
const KIND: &[u8] = b"M4A \0\0\0\0M4A mp42isom";

fn sizes(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().map(|frame| u32::try_from(frame.len()).unwrap()).collect()
}

/// The index of a file with one track.
fn moov(description: &[u8], rate_hz: u32, length: u32, lists: &[u8], more: &[u8]) -> Vec<u8> {
    let part = |tag: u8, content: &[&[u8]]| {
        let content = content.concat();
        [&[tag, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    };
    let config = part(4, &[b"\x40\x15\0\0\0\0\0\0\0\0\0\0\0", &part(5, &[description])]);
    let esds = atom(b"esds", &[&[0; 4], &part(3, &[&[0; 3], &config, &part(6, &[&[2]])])]);
    let rate = (rate_hz << 16).to_be_bytes();
    let mp4a =
        atom(b"mp4a", &[b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\x01\0\x10\0\0\0\0", &rate, &esds]);
    let described = atom(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1], &mp4a]);
    let table = atom(b"stbl", &[&described, lists]);
    let handler = atom(b"hdlr", &[&[0; 8], b"soun", &[0; 13]]);
    let data = atom(
        b"dinf",
        &[&atom(b"dref", &[&[0, 0, 0, 0, 0, 0, 0, 1], &atom(b"url ", &[&[0, 0, 0, 1]])])],
    );
    let media = atom(b"minf", &[&full(b"smhd", &[0]), &data, &table]);
    let times = full(b"mdhd", &[0, 0, rate_hz, length, 0x55c4_0000]);
    let media = atom(b"mdia", &[&times, &handler, &media]);
    let track = full(b"tkhd", &[&[0, 0, 1, 0, length][..], &[0; 15]].concat());
    let whole = full(b"mvhd", &[&[0, 0, rate_hz, length][..], &[0; 20], &[2]].concat());
    atom(b"moov", &[&whole, &atom(b"trak", &[&track, &media]), more])
}

/// A recording as phones make it, of this number of frames.
pub(crate) fn recording(frames: usize) -> Vec<u8> {
    m4a(&vec![frame(false); frames], &description(LOW_COMPLEXITY), RATE_HZ, FRAME)
}

/// A recording as browsers make it.
pub(crate) fn in_fragments(frames: usize) -> Vec<u8> {
    fragmented(&vec![frame(false); frames], 0)
}

#[test]
fn a_phone_s_aac_is_read_and_of_he_aac_the_core() {
    let plain = vec![frame(false); 64];
    let high = vec![frame(true); 64];
    let (core, double) = ((RATE_HZ, FRAME), (2 * RATE_HZ, 2 * FRAME));
    let of = |frames: &[Vec<u8>], kind, (rate_hz, samples)| {
        m4a(frames, &description(kind), rate_hz, samples)
    };
    let expected = try_decode(&of(&plain, LOW_COMPLEXITY, core)).unwrap();
    let seconds = f64::from(64 * FRAME) / f64::from(RATE_HZ);
    assert!((expected.audio.duration().as_secs_f64() - seconds).abs() < 0.001);
    assert!((0.01..1.0).contains(&expected.basis.peak), "{:?}", expected.basis);
    for (name, file) in [
        ("described", of(&high, HIGH_EFFICIENCY, double)),
        ("described, in two channels", of(&high, HIGH_EFFICIENCY_2, double)),
        ("not described", of(&high, LOW_COMPLEXITY, double)),
        ("of its core's rate", of(&high, HIGH_EFFICIENCY, core)),
    ] {
        let found = try_decode(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.audio.samples(), expected.audio.samples(), "{name}");
        assert!(found.warnings.is_empty(), "{name}: {:?}", found.warnings);
        let error = try_decode(&file[..file.len() * 3 / 4]).unwrap_err();
        assert_eq!(error.code(), "input.truncated", "{name}: {error}");
    }
}

#[test]
fn a_length_in_front_of_fragments_is_a_claim() {
    let frames = vec![frame(false); 1_300];
    let whole = try_decode(&m4a(&frames, &description(LOW_COMPLEXITY), RATE_HZ, FRAME)).unwrap();
    assert!(whole.audio.duration().as_secs() == 60, "{:?}", whole.audio.duration());
    for claimed in [0, 1, 16 * FRAME, 1_300 * FRAME, 5_000 * FRAME] {
        let found = try_decode(&fragmented(&frames, claimed));
        let found = found.unwrap_or_else(|error| panic!("{claimed}: {error}"));
        assert_eq!(found.audio.samples(), whole.audio.samples(), "{claimed}");
    }
    let cut = fragmented(&frames, 1_300 * FRAME);
    assert_eq!(try_decode(&cut[..cut.len() * 3 / 4]).unwrap_err().code(), "input.truncated");
    let cut = fragmented(&frames, 0);
    let found = try_decode(&cut[..cut.len() * 3 / 4]).unwrap();
    assert_eq!(found.warnings, [WarningCode::AudioDamaged]);
    let one = fragmented(&frames[..16], 0);
    assert_eq!(
        try_decode(&one[..one.len() - 100]).map(drop).unwrap_err().code(),
        "input.truncated"
    );
}

#[test]
fn a_fragment_whose_list_contradicts_itself_is_refused_before_it_is_read() {
    let whole = in_fragments(20);
    let at = memchr::memmem::find(&whole, b"trun").unwrap() + 4;
    // In place of the sizes, what the first frame has of its own: a length, or a size.
    for first in [4_u32, 0x200] {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&[0, 0, 0, 5]);
        bytes[at + 12..at + 16].copy_from_slice(&first.to_be_bytes());
        let error = try_decode(&bytes).map(drop).unwrap_err();
        assert_eq!(error.code(), "input.damaged", "{error}");
    }
    // Nor is an MP4 looked for within other files.
    let error = try_decode(&[&[0, 0, 0, 1, b'x'][..], &whole].concat()).map(drop).unwrap_err();
    assert_eq!(error.code(), "input.wrong_kind", "{error}");
}

#[test]
fn frames_that_cannot_be_decoded_become_silence_with_a_warning() {
    let mut frames = vec![frame(false); 64];
    frames[30..34].fill(vec![0x55; 7]);
    let found = try_decode(&m4a(&frames, &description(LOW_COMPLEXITY), RATE_HZ, FRAME)).unwrap();
    let seconds = f64::from(64 * FRAME) / f64::from(RATE_HZ);
    assert!((found.audio.duration().as_secs_f64() - seconds).abs() < 0.001);
    assert_eq!(found.warnings, [WarningCode::AudioDamaged]);
    assert!((0.18..0.19).contains(&found.basis.left_out.as_secs_f64()), "{:?}", found.basis);
}
