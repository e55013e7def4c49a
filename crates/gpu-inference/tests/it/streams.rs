//! Coded recordings: put together, changing, damaged in the middle, without a length.

use std::process::Command;

use gpu_inference::{Task, WarningCode, ffmpeg_version};
use opus_pure::{Application, MAX_PACKET_BYTES, OggOpusWriter, OpusEncoder, OpusHead};

use crate::audio::{Decoded, decoded, try_decode};
use crate::craft;
use crate::support::{pipeline, prepare, run_one, sample, transcript, wav};

const TEXT: &str = "Ever tried, ever failed, no matter, try again, fail again, fail better.";

/// A file of the speech that a program makes.
fn made(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.wav"), folder.path().join("to"));
    std::fs::write(&from, input).unwrap();
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let arguments = arguments.iter().map(|argument| match *argument {
        "FROM" => from,
        "TO" => to,
        other => other,
    });
    let status = Command::new(program).args(arguments).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}: apt install {program}"));
    assert!(status.success(), "{program}: {status}");
    std::fs::read(to).unwrap()
}

pub(crate) fn mp3(options: &[&str], input: &[u8]) -> Vec<u8> {
    made("lame", &[&["--quiet"], options, &["FROM", "TO"]].concat(), input)
}

pub(crate) fn flac(input: &[u8]) -> Vec<u8> {
    made("flac", &["--silent", "-o", "TO", "FROM"], input)
}

/// IMA ADPCM in WAV: blocks of 256 bytes, each beginning with a sample as it is, and four bits a sample after that.
pub(crate) fn adpcm(samples: &[i16]) -> Vec<u8> {
    const PER_BLOCK: usize = 505;
    let data = samples.chunks_exact(PER_BLOCK).flat_map(|block| {
        let [low, high] = block[0].to_le_bytes();
        let mut bytes = vec![low, high, 60, 0];
        // The step is some 700 high at first: up, and down, by the sign of the sample.
        bytes.extend(block[1..].chunks(2).map(|pair| {
            let code = |sample: i16| if sample > 0 { 0_u8 } else { 8 };
            code(pair[0]) | code(*pair.last().unwrap()) << 4
        }));
        bytes
    });
    let extension = [2, 0, 0xf9, 1].to_vec();
    let data = data.collect();
    craft::Wave { tag: 0x11, bits: 4, frame: Some(256), extension, data, ..craft::Wave::default() }
        .bytes()
}

/// Two seconds of a tone.
fn tone() -> Vec<u8> {
    let heights = (0..32_000).map(|at| if at / 20 % 2 == 0 { 6_000 } else { -6_000 });
    wav(16_000, &heights.collect::<Vec<_>>())
}

fn seconds(decoded: &Decoded) -> f64 {
    decoded.audio.duration().as_secs_f64()
}

fn assert_lasts(found: &Decoded, expected: f64) {
    let found = seconds(found);
    assert!((found - expected).abs() < 0.15, "{found} s for {expected} s");
}

#[test]
fn mp3s_put_together_are_read_to_the_end() {
    let one = mp3(&["-b", "64"], &tone());
    let found = try_decode(&[one.clone(), one.clone()].concat()).unwrap();
    assert_eq!((seconds(&found), found.warnings.len()), (4.0, 0));
    // Without the encoders' headers, and with a change of rate and of channels.
    let plain = mp3(&["-b", "64", "-t"], &tone());
    let other = mp3(&["-b", "64", "-t", "--resample", "44.1"], &tone());
    let stereo = mp3(&["-b", "64", "-t", "-m", "s"], &crate::audio::stereo_tone());
    let found = try_decode(&[plain.clone(), other, stereo, plain].concat()).unwrap();
    assert_lasts(&found, 8.2);
    assert_eq!(found.basis.channels, 2);
}

#[test]
fn recordings_of_every_kind_put_together_are_read_one_after_the_other() {
    let samples: Vec<u8> = tone()[44..].to_vec();
    let bytes = u32::try_from(samples.len()).unwrap();
    let swapped: Vec<u8> = samples.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    let (packets, _) = opus(16_000, &speech());
    for (name, one) in [
        ("FLAC", flac(&tone())),
        ("AU", craft::au(3, 16_000, bytes, &swapped)),
        ("WebM", craft::webm(48_000.0, &packets, &head_bytes(312, 48_000))),
        ("MP4", crate::aac::recording(20)),
    ] {
        let alone = seconds(&try_decode(&one).unwrap());
        let found = try_decode(&[one.clone(), one].concat()).unwrap();
        assert!((seconds(&found) - 2.0 * alone).abs() < 0.05, "{name}: {} s", seconds(&found));
        let damaged = found.warnings.contains(&WarningCode::AudioDamaged);
        assert!(!damaged, "{name}: {:?}", found.warnings);
    }
}

#[test]
fn a_kind_that_is_not_read_is_left_to_ffmpeg_by_its_name() {
    let packet = [&b"G"[..], &[0xff; 187]].concat();
    let film = crate::aac::recording(8);
    let at = memchr::memmem::find(&film, b"mp4a\0\0").unwrap();
    let unknown = [&film[..at], b"zzzz", &film[at + 4..]].concat();
    for (name, bytes) in [("transport", packet.repeat(9)), ("codec of its sound", unknown)] {
        let error = try_decode(&bytes).unwrap_err();
        assert_eq!(error.code(), "input.unsupported");
        assert!(error.to_string().contains(name), "{error}");
    }
    // Cut within its header, a known kind stays one.
    let (packets, _) = opus(16_000, &speech());
    let bytes = craft::webm(48_000.0, &packets, &head_bytes(312, 48_000));
    assert_eq!(try_decode(&bytes[..70]).unwrap_err().code(), "input.damaged");
}

#[test]
fn damage_in_the_middle_of_an_mp3_costs_its_frames_alone() {
    let mut bytes = mp3(&["-b", "64"], &tone());
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2_000].fill(0);
    let found = try_decode(&bytes).unwrap();
    assert_lasts(&found, 1.75);
    assert_eq!(found.warnings, [WarningCode::AudioDamaged]);
    assert!(found.basis.left_out.as_millis() >= 200, "{:?}", found.basis);
    // A cut one is cut, and says so.
    let whole = mp3(&["-b", "64"], &tone());
    assert_eq!(try_decode(&whole[..whole.len() / 2]).unwrap_err().code(), "input.truncated");
    let none = [&whole[..500], &[0x55; 3_000]].concat();
    assert!(try_decode(&none).is_err());
}

#[test]
fn an_mp3_s_own_count_of_frames_is_a_claim() {
    let bytes = mp3(&["-b", "64"], &tone());
    let at = memchr::memmem::find(&bytes, b"Info").unwrap() + 8;
    let frames = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    for claimed in [0, 3, frames / 2, frames * 2, u32::MAX] {
        let mut lying = bytes.clone();
        lying[at..at + 4].copy_from_slice(&claimed.to_be_bytes());
        let found = try_decode(&lying).unwrap_or_else(|error| panic!("{claimed}: {error}"));
        assert_lasts(&found, 2.05);
        assert!(found.warnings.is_empty(), "{claimed}: {:?}", found.warnings);
    }
}

#[test]
fn tags_around_an_mp3_are_no_sound() {
    let bytes = mp3(&["-b", "64", "--tt", "title", "--add-id3v2"], &tone());
    let id3 = [b"ID3\x03\0\0\0\0\x10\0".to_vec(), vec![0xff; 2_048]].concat();
    let ape = [b"APETAGEX\xd0\x07\0\0\x20\0\0\0\x01\0\0\0\0\0\0\0".to_vec(), vec![0; 8]].concat();
    let tag = [b"TAG".to_vec(), vec![b' '; 125]].concat();
    for file in [
        [id3.clone(), id3.clone(), bytes.clone()].concat(),
        [vec![0; 700], bytes.clone()].concat(),
        [bytes.clone(), ape, tag].concat(),
        // A length that goes on behind the end of the file, and a tag in front of another kind.
        [b"ID3\x03\0\0\x7f\x7f\x7f\x7f".to_vec(), bytes.clone()].concat(),
        [id3.clone(), tone()].concat(),
    ] {
        let found = try_decode(&file).unwrap();
        assert_eq!((seconds(&found), found.warnings.len()), (2.0, 0));
    }
}

#[test]
fn an_mp3_inside_a_wav_is_read() {
    let data = mp3(&["-b", "64"], &tone());
    let extension = [12, 0, 1, 0, 2, 0, 0, 0, 0, 4, 1, 0, 0, 0].to_vec();
    let mut wave = craft::Wave {
        tag: 0x55,
        bits: 0,
        frame: Some(1),
        extension,
        data,
        ..craft::Wave::default()
    };
    assert_lasts(&try_decode(&wave.bytes()).unwrap(), 2.0);
    let whole = wave.bytes();
    let error = try_decode(&whole[..whole.len() / 2]).unwrap_err();
    assert_eq!(error.code(), "input.truncated", "{error}");
    // Behind what is announced there are more frames.
    wave.data_length = Some(4_000);
    let found = try_decode(&wave.bytes()).unwrap();
    assert_lasts(&found, 2.0);
    assert_eq!(found.warnings, [WarningCode::AudioLength]);
}

#[test]
fn adpcm_inside_a_wav_is_read_and_other_codecs_are_named() {
    let tone: Vec<i16> =
        (0..8_080).map(|at| if at / 10 % 2 == 0 { 5_000 } else { -5_000 }).collect();
    let bytes = adpcm(&tone);
    assert_lasts(&try_decode(&bytes).unwrap(), 1.0);
    // Its length as a stream's.
    let mut stream = bytes.clone();
    let at = memchr::memmem::find(&stream, b"data").unwrap() + 4;
    stream[at..at + 4].copy_from_slice(&[0xff; 4]);
    assert_lasts(&try_decode(&stream).unwrap(), 1.0);
    // Fewer blocks than there are.
    stream[at..at + 4].copy_from_slice(&1_024_u32.to_le_bytes());
    let found = try_decode(&stream).unwrap();
    assert_lasts(&found, 1.0);
    assert_eq!(found.warnings, [WarningCode::AudioLength]);
}

#[test]
fn one_bad_frame_of_a_flac_is_silent_and_the_rest_is_there() {
    let whole = std::fs::read(sample("beckett.wav")).unwrap();
    let bytes = flac(&whole);
    let original = try_decode(&bytes).unwrap();
    for at in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 40] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0xff;
        let found = try_decode(&flipped).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!((seconds(&found) - seconds(&original)).abs() < 0.3, "{at}");
        assert_eq!(found.warnings, [WarningCode::AudioDamaged], "{at}");
    }
    assert_eq!(try_decode(&bytes[..bytes.len() / 2]).unwrap_err().code(), "input.truncated");
}

#[test]
fn a_flac_s_number_of_samples_is_a_claim() {
    assert_count_is_a_claim(&flac(&std::fs::read(sample("beckett.wav")).unwrap()));
    // Ten minutes of silence take some kilobytes, whose size says nothing of their length.
    let silence = flac(&wav(16_000, &vec![0; 600 * 16_000]));
    assert!(silence.len() < 64 << 10, "{}", silence.len());
    assert_count_is_a_claim(&silence);
}

fn assert_count_is_a_claim(bytes: &[u8]) {
    let whole = try_decode(bytes).unwrap();
    // The last 36 bits of the fields at 18 are the number of samples.
    for claimed in [0_u32, 1_000, 159_000, 320_000, 0x0fff_ffff] {
        let mut lying = bytes.to_vec();
        lying[21] &= 0xf0;
        lying[22..26].copy_from_slice(&claimed.to_be_bytes());
        let found = try_decode(&lying).unwrap_or_else(|error| panic!("{claimed}: {error}"));
        assert_eq!(found.audio.samples(), whole.audio.samples(), "{claimed}");
        let far_less =
            claimed > 0 && u64::from(claimed) + 4_096 < whole.audio.samples().len() as u64;
        let warns = found.warnings.contains(&WarningCode::AudioLength);
        assert_eq!(warns, far_less, "{claimed}");
    }
}

/// Opus packets of 20 ms, with the header that describes them.
pub(crate) fn opus(rate_hz: u32, samples: &[f32]) -> (Vec<Vec<u8>>, OpusHead) {
    let rate = i32::try_from(rate_hz).unwrap();
    let mut encoder = OpusEncoder::new(rate, 1, Application::Voip).unwrap();
    encoder.bitrate_bps = 32_000;
    let frame = rate_hz as usize / 50;
    let mut packet = vec![0; MAX_PACKET_BYTES];
    let packets = samples.chunks(frame).map(|chunk| {
        let mut chunk = chunk.to_vec();
        chunk.resize(frame, 0.0);
        let bytes = encoder.encode(&chunk, frame, &mut packet).unwrap();
        packet[..bytes].to_vec()
    });
    let packets = packets.collect();
    (packets, OpusHead::for_encoder(&encoder, rate_hz))
}

fn speech() -> Vec<f32> {
    decoded(&sample("beckett.wav")).unwrap().audio.samples().to_vec()
}

pub(crate) fn ogg(packets: &[Vec<u8>], head: OpusHead) -> Vec<u8> {
    let mut writer = OggOpusWriter::new(Vec::new(), head).unwrap();
    packets.iter().for_each(|packet| writer.write_packet(packet).unwrap());
    writer.finish().unwrap()
}

/// As in the first packet of Ogg, and in WebM.
pub(crate) fn head_bytes(delay: u16, rate_hz: u32) -> Vec<u8> {
    [b"OpusHead\x01\x01", &delay.to_le_bytes()[..], &rate_hz.to_le_bytes(), &[0, 0, 0]].concat()
}

#[test]
fn silence_is_as_long_as_it_is_however_few_bytes_it_takes() {
    // Each of 20 ms.
    let packets = vec![vec![0xfc, 0xff, 0xfe]; 60 * 50];
    let (_, head) = opus(16_000, &[]);
    let description = head_bytes(0, 16_000);
    for file in [ogg(&packets, head), craft::webm(16_000.0, &packets, &description)] {
        let found = try_decode(&file).unwrap();
        assert!((seconds(&found) - 60.0).abs() < 0.1, "{} bytes: {}", file.len(), seconds(&found));
        assert!(found.basis.left_out.is_zero(), "{:?}", found.basis);
    }
}

#[test]
fn the_same_speech_is_the_same_text_in_every_format() {
    let whole = std::fs::read(sample("beckett.wav")).unwrap();
    let (packets, head) = opus(16_000, &speech());
    let files = [
        ("flac", flac(&whole)),
        ("mp3", mp3(&["-b", "64"], &whole)),
        ("variable mp3", mp3(&["-V", "5"], &whole)),
        ("a messenger's ogg", ogg(&packets, head)),
        ("a browser's webm", craft::webm(8_000.0, &packets, &head_bytes(312, 16_000))),
    ];
    let mut pipeline = pipeline("moonshine-tiny-en");
    for (name, bytes) in files.into_iter().chain(made_by_ffmpeg(&whole)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let output = run_one(&mut pipeline, prepare(Task::VoiceTranscribe, file.path()));
        assert!(output.remarks.warnings.is_empty(), "{name}: {:?}", output.remarks);
        let found = transcript(output);
        let errors = word_errors(&found.text, TEXT);
        assert!(errors <= 1, "{name}: {errors} words of 12 differ: {}", found.text);
        assert!((found.audio.as_secs_f64() - 9.963).abs() < 0.1, "{name}: {:?}", found.audio);
    }
}

/// The same in further formats, where ffmpeg is installed: the tests do not need it.
fn made_by_ffmpeg(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    const PICTURE: &[&str] =
        &["-f", "lavfi", "-t", "10", "-i", "color=size=64x64:rate=5", "-map", "1:v", "-map", "0:a"];
    const FORMATS: [(&str, &[&str]); 21] = [
        ("m4a", &["-f", "ipod", "-c:a", "aac"]),
        (
            "mp4 in fragments",
            &["-f", "mp4", "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"],
        ),
        ("alac in m4a", &["-f", "ipod", "-c:a", "alac"]),
        ("opus in mp4", &["-f", "mp4", "-c:a", "libopus"]),
        ("pcm in mov", &["-f", "mov", "-c:a", "pcm_s16le"]),
        ("vorbis in ogg", &["-f", "ogg", "-c:a", "libvorbis"]),
        ("opus in ogg", &["-f", "ogg", "-c:a", "libopus", "-b:a", "24k"]),
        ("flac in ogg", &["-f", "ogg", "-c:a", "flac"]),
        ("opus in webm", &["-f", "webm", "-c:a", "libopus", "-live", "1"]),
        ("mp3 in mkv", &["-f", "matroska", "-c:a", "libmp3lame"]),
        ("aac in mkv", &["-f", "matroska", "-c:a", "aac"]),
        ("adts", &["-f", "adts", "-c:a", "aac"]),
        ("mp2", &["-f", "mp2", "-c:a", "mp2", "-ar", "48000"]),
        ("aiff", &["-f", "aiff"]),
        ("pcm in caf", &["-f", "caf", "-c:a", "pcm_s16be"]),
        ("alac in caf", &["-f", "caf", "-c:a", "alac"]),
        ("ima adpcm", &["-f", "wav", "-c:a", "adpcm_ima_wav"]),
        ("ms adpcm", &["-f", "wav", "-c:a", "adpcm_ms"]),
        ("mp3 in wav", &["-f", "wav", "-c:a", "libmp3lame"]),
        ("wma", &["-f", "asf", "-c:a", "wmav2"]),
        ("ac3", &["-f", "ac3", "-c:a", "ac3"]),
    ];
    if ffmpeg_version().is_none() {
        return Vec::new();
    }
    let quiet = ["-v", "error", "-y", "-i", "FROM"];
    let mut files: Vec<(&str, Vec<u8>)> = FORMATS
        .iter()
        .map(|(name, options)| {
            (*name, made("ffmpeg", &[&quiet, *options, &["TO"]].concat(), whole))
        })
        .collect();
    let film = [&quiet, PICTURE, &["-c:v", "mpeg4", "-c:a", "aac", "-f", "mp4", "TO"]].concat();
    files.push(("a film", made("ffmpeg", &film, whole)));
    files
}

/// Words to change, add or leave out.
fn word_errors(found: &str, expected: &str) -> usize {
    let words = |text: &str| -> Vec<String> {
        let letters = |word: &str| word.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "");
        text.split_whitespace().map(letters).collect()
    };
    let (found, expected) = (words(found), words(expected));
    let mut row: Vec<usize> = (0..=expected.len()).collect();
    for (i, word) in found.iter().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, other) in expected.iter().enumerate() {
            let changed = before + usize::from(word != other);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[expected.len()]
}

#[test]
fn ogg_streams_one_behind_the_other_are_all_read() {
    let (packets, head) = opus(16_000, &speech());
    let one = ogg(&packets, head);
    let found = try_decode(&[one.clone(), one.clone()].concat()).unwrap();
    assert_lasts(&found, 19.93);
    assert_eq!(found.basis.tracks, 1);
}

#[test]
fn an_adpcm_that_was_cut_is_truncated() {
    let bytes = adpcm(&[5_000; 8_080]);
    assert_eq!(try_decode(&bytes[..bytes.len() / 2]).unwrap_err().code(), "input.truncated");
}

#[test]
fn an_ogg_that_ends_within_a_page_or_lacks_one_says_so() {
    let (packets, head) = opus(16_000, &speech());
    let bytes = ogg(&packets, head);
    let pages: Vec<usize> = memchr::memmem::find_iter(&bytes, b"OggS").collect();
    let (last, middle) = (pages[pages.len() - 1], pages[pages.len() / 2]);
    // What was to follow a whole page is not known.
    let found = try_decode(&bytes[..last]).unwrap();
    assert!(found.warnings.is_empty() && seconds(&found) > 8.5, "{:?}", found.warnings);
    for missing in [1, 40, bytes.len() - last - 20] {
        let found = try_decode(&bytes[..bytes.len() - missing]).unwrap();
        assert_eq!(found.warnings, [WarningCode::AudioDamaged], "{missing}");
    }
    for damaged in [middle, pages[pages.len() - 2]] {
        let mut bytes = bytes.clone();
        bytes[damaged + 200] ^= 0xff;
        let found = try_decode(&bytes).unwrap();
        assert_eq!(found.warnings, [WarningCode::AudioDamaged], "{damaged}");
        assert!(found.basis.left_out.as_millis() > 500, "{:?}", found.basis);
        let all = found.basis.decoded + found.basis.left_out;
        assert!((all.as_secs_f64() - 9.96).abs() < 0.15, "{:?}", found.basis);
    }
}

#[test]
fn damage_in_a_webm_costs_its_clusters_alone() {
    let (packets, _) = opus(16_000, &speech());
    let bytes = craft::webm(48_000.0, &packets, &head_bytes(312, 48_000));
    for filling in [0x55, 0, 0xff] {
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 600].fill(filling);
        let found = try_decode(&damaged).unwrap();
        assert_lasts(&found, 9.96);
        assert_eq!(found.warnings, [WarningCode::AudioDamaged], "{filling}");
        assert!((100..1_500).contains(&found.basis.left_out.as_millis()), "{:?}", found.basis);
    }
    // Where its length is said, a file that is shorter was cut; otherwise it ends within a packet.
    let at = memchr::memmem::find(&bytes, b"\x18\x53\x80\x67").unwrap() + 4;
    let mut sized = bytes.clone();
    let length = (bytes.len() - at - 8) as u64 | 1 << 56;
    sized[at..at + 8].copy_from_slice(&length.to_be_bytes());
    let half = bytes.len() / 2;
    assert!(try_decode(&sized).unwrap().warnings.is_empty());
    assert_eq!(try_decode(&sized[..half]).unwrap_err().code(), "input.truncated");
    let found = try_decode(&bytes[..half]).unwrap();
    assert_eq!(found.warnings, [WarningCode::AudioDamaged]);
}

#[test]
fn a_webm_cut_anywhere_ends_where_the_file_does() {
    let (packets, _) = opus(16_000, &speech());
    let bytes = craft::webm(48_000.0, &packets, &head_bytes(312, 48_000));
    let found = try_decode(&bytes).unwrap();
    assert_lasts(&found, 9.96);
    assert_lasts(&try_decode(&bytes[..bytes.len() / 2]).unwrap(), 4.98);
    let mut damaged = packets.clone();
    damaged[100] = vec![0xff; 40];
    let found = try_decode(&craft::webm(48_000.0, &damaged, &head_bytes(312, 48_000))).unwrap();
    assert_lasts(&found, 9.96);
    assert_eq!(found.warnings, [WarningCode::AudioDamaged]);
}
