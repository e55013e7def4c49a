//! Recordings put together byte by byte, as odd programs write them.

/// A WAV file, its numbers as they should be unless they are set.
#[derive(Clone)]
pub(crate) struct Wave {
    pub(crate) name: &'static [u8; 4],
    pub(crate) tag: u16,
    pub(crate) channels: u16,
    pub(crate) rate_hz: u32,
    pub(crate) bits: u16,
    /// Bytes of one sample of each channel.
    pub(crate) frame: Option<u16>,
    /// What follows the 16 bytes of the description.
    pub(crate) extension: Vec<u8>,
    /// Chunks before the samples.
    pub(crate) before: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// What follows the samples.
    pub(crate) after: Vec<u8>,
    pub(crate) riff_length: Option<u32>,
    pub(crate) data_length: Option<u32>,
}

impl Default for Wave {
    fn default() -> Self {
        Self {
            name: b"RIFF",
            tag: 1,
            channels: 1,
            rate_hz: 8_000,
            bits: 16,
            frame: None,
            extension: Vec::new(),
            before: Vec::new(),
            data: Vec::new(),
            after: Vec::new(),
            riff_length: None,
            data_length: None,
        }
    }
}

impl Wave {
    /// Its bytes; those of RIFX have the other order throughout.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let is_big = self.name == b"RIFX";
        let u16 = |value: u16| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
        let u32 = |value: u32| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
        let frame = self.frame.unwrap_or(self.channels * self.bits.div_ceil(8));
        let mut description = [u16(self.tag), u16(self.channels)].concat();
        description.extend(u32(self.rate_hz));
        description.extend(u32(self.rate_hz.wrapping_mul(frame.into())));
        description.extend([u16(frame), u16(self.bits)].concat());
        description.extend(&self.extension);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let data_length = u32(self.data_length.unwrap_or(length(&self.data)));
        let body = [
            b"WAVEfmt ",
            &u32(length(&description))[..],
            &description,
            &self.before,
            b"data",
            &data_length,
            &self.data,
            &self.after,
        ]
        .concat();
        let riff_length = u32(self.riff_length.unwrap_or(length(&body)));
        [&self.name[..], &riff_length, &body].concat()
    }
}

/// A chunk of a little-endian file.
pub(crate) fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    let padding: &[u8] = if content.len().is_multiple_of(2) { &[] } else { &[0] };
    [&name[..], &length, content, padding].concat()
}

/// What follows in WAVE_FORMAT_EXTENSIBLE: the bits that are in use, the speakers, and the codec.
pub(crate) fn extension(bits: u16, speakers: u32, codec: u16) -> Vec<u8> {
    let rest = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71";
    [
        &22_u16.to_le_bytes()[..],
        &bits.to_le_bytes(),
        &speakers.to_le_bytes(),
        &codec.to_le_bytes(),
        rest,
    ]
    .concat()
}

/// Sony's Wave64.
pub(crate) fn wave64(rate_hz: u32, samples: &[u8]) -> Vec<u8> {
    let guid = |name: &[u8; 4], first: bool| {
        let rest: &[u8] = if first {
            b"\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"
        } else {
            b"\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a"
        };
        [&name[..], rest].concat()
    };
    let size = |bytes: usize| (bytes as u64).to_le_bytes();
    let mut description = b"\x01\0\x01\0".to_vec();
    description.extend(rate_hz.to_le_bytes());
    description.extend((rate_hz * 2).to_le_bytes());
    description.extend(b"\x02\0\x10\0");
    [
        guid(b"riff", true),
        size(40 + 40 + 24 + samples.len()).to_vec(),
        guid(b"wave", false),
        guid(b"fmt ", false),
        size(40).to_vec(),
        description,
        guid(b"data", false),
        size(24 + samples.len()).to_vec(),
        samples.to_vec(),
    ]
    .concat()
}

/// RF64 with its lengths in a chunk of their own.
pub(crate) fn rf64(name: &'static [u8; 4], rate_hz: u32, samples: &[u8]) -> Vec<u8> {
    let unknown = u32::MAX.to_le_bytes();
    let length = (samples.len() as u64).to_le_bytes();
    let lengths =
        [&(72 + samples.len() as u64).to_le_bytes()[..], &length, &length, &[0; 4]].concat();
    let wave =
        Wave { rate_hz, data: samples.to_vec(), data_length: Some(u32::MAX), ..Wave::default() };
    let bytes = wave.bytes();
    [&name[..], &unknown, b"WAVE", &chunk(b"ds64", &lengths), &bytes[12..]].concat()
}

/// Sun's AU.
pub(crate) fn au(codec: u32, rate_hz: u32, length: u32, samples: &[u8]) -> Vec<u8> {
    let numbers = [28, length, codec, rate_hz, 1].map(u32::to_be_bytes).concat();
    [b".snd", &numbers[..], b"note", samples].concat()
}

/// AIFF, or AIFC where there is a codec. The rate is a number of 80 bits.
pub(crate) fn aiff(codec: Option<&[u8; 4]>, bits: u16, rate_hz: u32, samples: &[u8]) -> Vec<u8> {
    let shift = rate_hz.leading_zeros();
    let exponent = u16::try_from(16_383 + 31 - shift).unwrap();
    let frames = u32::try_from(samples.len()).unwrap() * 8 / u32::from(bits);
    let mut common =
        [&1_u16.to_be_bytes()[..], &frames.to_be_bytes(), &bits.to_be_bytes()].concat();
    common
        .extend([&exponent.to_be_bytes()[..], &(rate_hz << shift).to_be_bytes(), &[0; 4]].concat());
    common.extend(codec.map_or(Vec::new(), |codec| [&codec[..], &[0, 0]].concat()));
    let big_chunk = |name: &[u8; 4], content: &[u8]| {
        [&name[..], &u32::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
    };
    let sound = [&[0; 8], samples].concat();
    let form: &[u8; 4] = if codec.is_some() { b"AIFC" } else { b"AIFF" };
    big_chunk(
        b"FORM",
        &[&form[..], &big_chunk(b"COMM", &common), &big_chunk(b"SSND", &sound)].concat(),
    )
}

/// A WebM file with Opus, as a browser's recorder makes it: nothing has a length, and there is no duration.
pub(crate) fn webm(rate_hz: f64, packets: &[Vec<u8>], head: &[u8]) -> Vec<u8> {
    webm_of_tracks(1, rate_hz, packets, head)
}

/// The same with several tracks, of which the first holds the packets.
pub(crate) fn webm_of_tracks(
    tracks: u8,
    rate_hz: f64,
    packets: &[Vec<u8>],
    head: &[u8],
) -> Vec<u8> {
    let ebml = element(&[0x1a, 0x45, 0xdf, 0xa3], &element(&[0x42, 0x82], b"webm"));
    let audio = [element(&[0xb5], &rate_hz.to_be_bytes()), element(&[0x9f], &[1])].concat();
    let track = |number: u8| {
        let fields = [
            element(&[0xd7], &[number]),
            element(&[0x73, 0xc5], &[number]),
            element(&[0x83], &[2]),
            element(&[0x86], b"A_OPUS"),
            element(&[0x63, 0xa2], head),
            element(&[0xe1], &audio),
        ];
        element(&[0xae], &fields.concat())
    };
    let tracks: Vec<u8> = (1..=tracks).flat_map(track).collect();
    let tracks = element(&[0x16, 0x54, 0xae, 0x6b], &tracks);
    let fields = [
        element(&[0x2a, 0xd7, 0xb1], &1_000_000_u32.to_be_bytes()),
        element(&[0x4d, 0x80], b"test"),
        element(&[0x57, 0x41], b"test"),
    ];
    let info = element(&[0x15, 0x49, 0xa9, 0x66], &fields.concat());
    let mut bytes = [ebml, vec![0x18, 0x53, 0x80, 0x67], UNKNOWN.to_vec(), info, tracks].concat();
    for (index, cluster) in packets.chunks(50).enumerate() {
        bytes.extend([0x1f, 0x43, 0xb6, 0x75]);
        bytes.extend(UNKNOWN);
        bytes.extend(element(&[0xe7], &u32::try_from(index * 1_000).unwrap().to_be_bytes()));
        for (at, packet) in cluster.iter().enumerate() {
            let time = u16::try_from(at * 20).unwrap().to_be_bytes();
            bytes.extend(element(&[0xa3], &[&[0x81][..], &time, &[0x80], packet].concat()));
        }
    }
    bytes
}

/// The length of an element that has none.
const UNKNOWN: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

fn element(name: &[u8], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap() | 0x1000_0000;
    [name, &length.to_be_bytes(), content].concat()
}
