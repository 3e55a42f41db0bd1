//! The inventory of what can be replaced (section 34), in the format of the Platform Management FRU specification 1.0: one
//! unit, the machine itself.

use super::command::{ABSENT, Answer, INVALID, LENGTH, RANGE, u16_of};
use super::message::checksum;
use crate::state::State;

/// Areas are counted in these.
const BLOCK_BYTES: usize = 8;
/// Characters of a field: five bits, and 1 means the end.
const FIELD_MAX: usize = 31;
/// Bytes a reading.
const READ_MAX: usize = 32;

pub(super) fn run(state: &State, command: u8, data: &[u8]) -> Answer {
    let Some(unit) = data.first() else { return Answer::no(LENGTH) };
    if *unit != 0 {
        return Answer::no(ABSENT);
    }
    let inventory = inventory(state);
    match command {
        0x10 => {
            let size = u16::try_from(inventory.len()).unwrap_or(u16::MAX).to_le_bytes();
            // Counted in bytes.
            Answer::of([size[0], size[1], 0])
        }
        0x11 => {
            let (Some(offset), Some(count)) = (u16_of(data, 1), data.get(3)) else { return Answer::no(LENGTH) };
            let Some(rest) = inventory.get(usize::from(offset)..) else { return Answer::no(RANGE) };
            let part = rest.get(..usize::from(*count).min(READ_MAX)).unwrap_or(rest);
            let mut answer = vec![u8::try_from(part.len()).unwrap_or(0)];
            answer.extend(part);
            Answer::of(answer)
        }
        _ => Answer::no(INVALID),
    }
}

fn inventory(state: &State) -> Vec<u8> {
    let spec = state.machine.spec();
    // Rack mount chassis: part number, serial.
    let chassis = area(&[0x17], &["", &spec.serial]);
    // Language English: manufacturer, name, part number, version, serial, asset tag.
    let product = area(&[0], &[&spec.vendor, &spec.model, "", "", &spec.serial, ""]);
    let blocks = |bytes: usize| u8::try_from(bytes / BLOCK_BYTES).unwrap_or(0);
    let product_at = blocks(BLOCK_BYTES + chassis.len());
    let mut inventory = vec![1, 0, 1, 0, product_at, 0, 0];
    inventory.push(checksum(&inventory));
    inventory.extend(chassis);
    inventory.extend(product);
    inventory
}

/// An area: format, length, what stands before its fields, the fields, and a checksum at the end of its last block.
fn area(head: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut area = vec![1, 0];
    area.extend(head);
    for field in fields {
        let mut text = field.as_bytes().get(..FIELD_MAX).unwrap_or(field.as_bytes()).to_vec();
        // A field of one character would read as the end.
        if text.len() == 1 {
            text.push(b' ');
        }
        area.push(if text.is_empty() { 0 } else { 0xc0 | u8::try_from(text.len()).unwrap_or(0) });
        area.extend(text);
    }
    area.push(0xc1);
    area.resize((area.len() + 1).next_multiple_of(BLOCK_BYTES) - 1, 0);
    let length = u8::try_from((area.len() + 1) / BLOCK_BYTES).unwrap_or(0);
    if let Some(place) = area.get_mut(1) {
        *place = length;
    }
    area.push(checksum(&area));
    area
}
