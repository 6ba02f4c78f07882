//! slim-sprig's encodings: RFC 4648. A text that cannot be decoded becomes the message that says so, as in sprig.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Param::String as Text;
use super::{Function, Result, function, text};

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(super) const TABLE: &[Function] = &[
    function("b64enc", &[Text], |_, given| text(STANDARD.encode(given[0].str()))),
    function("b64dec", &[Text], |_, given| decoded(base64_decoded(given[0].str()))),
    function("b32enc", &[Text], |_, given| text(base32_encoded(given[0].str().as_bytes()))),
    function("b32dec", &[Text], |_, given| decoded(base32_decoded(given[0].str()))),
];

fn decoded(bytes: std::result::Result<Vec<u8>, String>) -> Result {
    match bytes.map(String::from_utf8) {
        Ok(Ok(decoded)) => text(decoded),
        Ok(Err(_)) => Err("what this decodes to is no UTF-8".into()),
        Err(message) => text(message),
    }
}

fn base64_decoded(text: &str) -> std::result::Result<Vec<u8>, String> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    STANDARD.decode(&joined).map_err(|_| format!("illegal base64 data at input byte {}", base64_fault(text.as_bytes())))
}

/// The byte at which Go gives up.
fn base64_fault(bytes: &[u8]) -> usize {
    let mut digits = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' | b'\r' => {}
            b'=' => {
                let mut rest = bytes[at + 1..].iter().filter(|byte| !matches!(byte, b'\n' | b'\r'));
                return match digits % 4 {
                    0 | 1 => at,
                    2 => match rest.next() {
                        None => bytes.len(),
                        Some(b'=') => at + 2,
                        Some(_) => at,
                    },
                    _ => at + 1,
                };
            }
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/') => digits += 1,
            _ => return at,
        }
    }
    bytes.len() - digits % 4
}

fn base32_encoded(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(5) {
        let mut block = [0u8; 8];
        block[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(block);
        let digits = (chunk.len() * 8).div_ceil(5);
        for index in 0..8 {
            let digit = usize::try_from(bits >> (35 - 5 * index) & 31).unwrap_or(0);
            out.push(if index < digits { char::from(BASE32[digit]) } else { '=' });
        }
    }
    out
}

fn base32_decoded(text: &str) -> std::result::Result<Vec<u8>, String> {
    let joined: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    let illegal = |at: usize| format!("illegal base32 data at input byte {at}");
    if !joined.len().is_multiple_of(8) {
        let at = joined.iter().position(|byte| !BASE32.contains(byte)).unwrap_or(joined.len());
        return Err(illegal(at));
    }
    let digits = joined.iter().position(|byte| *byte == b'=').unwrap_or(joined.len());
    if joined.len() - digits > 6 || joined[digits..].iter().any(|byte| *byte != b'=') || matches!(digits % 8, 1 | 3 | 6)
    {
        return Err(illegal(digits));
    }
    let (mut bits, mut count, mut out) = (0u32, 0u32, Vec::new());
    for (at, byte) in joined[..digits].iter().enumerate() {
        let digit = BASE32.iter().position(|digit| digit == byte).ok_or_else(|| illegal(at))?;
        bits = bits << 5 | u32::try_from(digit).unwrap_or(0);
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).unwrap_or(0));
        }
    }
    Ok(out)
}
