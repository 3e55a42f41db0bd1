//! Accounts (sections 22.26 to 22.30), as ipmitool's `user` verbs use them. User 1 has no name and is not; ours begin at 2.

use super::command::{Answer, LENGTH, RANGE};
use crate::state::{Account, State};
use bmc::Secret;

/// User IDs.
const IDS: u8 = 10;
/// The ID of the first account.
const FIRST_ID: usize = 2;
/// "No access" as a privilege.
const NO_ACCESS: u8 = 0x0f;

pub(super) fn run(state: &mut State, command: u8, data: &[u8]) -> Answer {
    match command {
        0x43 => set_access(state, data),
        0x44 => access(state, data),
        0x45 => set_name(state, data),
        0x46 => name(state, data),
        _ => password(state, data),
    }
}

fn place(id: u8) -> Option<usize> {
    usize::from(id & 0x3f).checked_sub(FIRST_ID)
}

fn account(state: &State, id: u8) -> Option<&Account> {
    place(id).and_then(|place| state.accounts.get(place))
}

/// The account at an ID, made if there is none yet.
fn account_at(state: &mut State, id: u8) -> Option<&mut Account> {
    let place = place(id).filter(|_| id & 0x3f <= IDS)?;
    while state.accounts.len() <= place {
        state.accounts.push(Account::unused());
    }
    state.accounts.get_mut(place)
}

fn access(state: &State, data: &[u8]) -> Answer {
    let [_, id, ..] = *data else { return Answer::no(LENGTH) };
    if !(1..=IDS).contains(&(id & 0x3f)) {
        return Answer::no(RANGE);
    }
    let enabled = u8::try_from(state.accounts.iter().filter(|account| account.enabled).count()).unwrap_or(0);
    let account = account(state, id);
    let access = account.map_or(NO_ACCESS, |account| u8::from(account.messaging) << 4 | account.privilege);
    let status = if account.is_some_and(|account| account.enabled) { 0x40 } else { 0x80 };
    Answer::of([IDS, status | enabled, 1, access])
}

fn set_access(state: &mut State, data: &[u8]) -> Answer {
    let [flags, id, limit, ..] = *data else { return Answer::no(LENGTH) };
    let limit = limit & 0x0f;
    if !matches!(limit, 1..=4 | NO_ACCESS) {
        return Answer::no(RANGE);
    }
    let Some(account) = account_at(state, id) else { return Answer::no(RANGE) };
    // Bit 7: the bits beside the channel are meant to change; bit 4: messages of IPMI.
    if flags & 0x80 != 0 {
        account.messaging = flags & 0x10 != 0;
    }
    account.privilege = limit;
    Answer::of([])
}

fn name(state: &State, data: &[u8]) -> Answer {
    let Some(id) = data.first() else { return Answer::no(LENGTH) };
    let mut name = [0; 16];
    if let Some(account) = account(state, *id) {
        for (place, byte) in name.iter_mut().zip(account.name.bytes()) {
            *place = byte;
        }
    }
    Answer::of(name)
}

fn set_name(state: &mut State, data: &[u8]) -> Answer {
    let [id, name @ ..] = data else { return Answer::no(LENGTH) };
    if name.len() != 16 {
        return Answer::no(LENGTH);
    }
    let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
    let name = String::from_utf8_lossy(&name).into_owned();
    let taken = !name.is_empty() && state.accounts.iter().any(|account| account.name == name);
    match account_at(state, *id) {
        Some(account) if account.name == name || !taken => {
            account.name = name;
            Answer::of([])
        }
        // Another account's name, as most firmware refuses it: invalid data.
        Some(_) => Answer::no(0xcc),
        None => Answer::no(RANGE),
    }
}

fn password(state: &mut State, data: &[u8]) -> Answer {
    let [id, operation, password @ ..] = data else { return Answer::no(LENGTH) };
    let operation = operation & 3;
    if operation >= 2 && password.len() != 16 && password.len() != 20 {
        return Answer::no(LENGTH);
    }
    let Some(account) = account_at(state, *id) else { return Answer::no(RANGE) };
    let end = password.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let given = Secret::new(password.get(..end).unwrap_or_default().to_vec());
    match operation {
        0 | 1 => account.enabled = operation == 1,
        2 => account.password = given,
        _ if account.password == given => {}
        _ => return Answer::no(0x80),
    }
    Answer::of([])
}
