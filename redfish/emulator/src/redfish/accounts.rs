//! Accounts: made, changed, taken away. Their numbers are places in the list, so a place is kept when it is emptied.

use super::answer::Answer;
use super::service::ROLES;
use crate::state::{Account, State};
use bmc::Secret;
use serde_json::{Value, json};

/// Accounts at most.
const ACCOUNTS_MAX: usize = 9;
/// Characters of a password at least.
const PASSWORD_LEAST: usize = 8;

fn role(privilege: u8) -> &'static str {
    match privilege {
        4 => "Administrator",
        3 => "Operator",
        _ => "ReadOnly",
    }
}

fn privilege(role: &str) -> Option<u8> {
    let place = ROLES.iter().position(|(name, _)| *name == role)?;
    [4, 3, 2].get(place).copied()
}

/// The account of this number, as it is shown.
pub(super) fn resource(state: &State, path: &str, number: usize) -> Option<Value> {
    let account = state.accounts.get(number.checked_sub(1)?).filter(|account| !account.name.is_empty())?;
    let role = role(account.privilege);
    Some(json!({ "@odata.id": path, "@odata.type": "#ManagerAccount.v1_9_0.ManagerAccount", "Id": number.to_string(),
        "UserName": account.name, "RoleId": role, "Enabled": account.enabled, "Locked": false, "Password": null,
        "AccountTypes": ["Redfish", "IPMI"],
        "Links": { "Role": { "@odata.id": format!("/redfish/v1/AccountService/Roles/{role}") } } }))
}

fn missing() -> Answer {
    Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such account.")
}

fn place(path: &str) -> Option<usize> {
    path.strip_prefix("/redfish/v1/AccountService/Accounts/")?.parse::<usize>().ok()?.checked_sub(1)
}

/// What is asked of an account: each part, if it is there and right.
struct Wish {
    name: Option<String>,
    password: Option<Secret>,
    privilege: Option<u8>,
    enabled: Option<bool>,
}

impl Wish {
    fn read(body: &Value) -> Result<Wish, Answer> {
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let no = |id: &str, text: &str| Answer::refusal(400, &format!("Base.1.12.{id}"), text);
        let known = ["UserName", "Password", "RoleId", "Enabled", "AccountTypes", "PasswordChangeRequired"];
        let Some(object) = body.as_object() else { return Err(no("MalformedJSON", "The body is no JSON object.")) };
        let annotation = |name: &&String| name.starts_with("@odata.");
        if !object.is_empty() && object.keys().all(|name| annotation(&name)) {
            return Err(no("NoOperation", "The request changes nothing."));
        }
        let named = object.keys().filter(|name| !annotation(name));
        if let Some(name) = named.into_iter().find(|name| !known.contains(&name.as_str())) {
            return Err(no("PropertyUnknown", &format!("The property {name} is unknown.")));
        }
        let password = text("Password");
        if password.is_some_and(|password| password.len() < PASSWORD_LEAST) {
            return Err(no("PropertyValueFormatError", "The password is too short."));
        }
        let privilege = match text("RoleId").map(privilege) {
            Some(None) => return Err(no("PropertyValueNotInList", "There is no such role.")),
            given => given.flatten(),
        };
        Ok(Wish {
            name: text("UserName").filter(|name| !name.is_empty()).map(str::to_owned),
            password: password.map(|password| Secret::new(password.as_bytes().to_vec())),
            privilege,
            enabled: body.get("Enabled").and_then(Value::as_bool),
        })
    }
}

/// Makes one.
pub(super) fn create(state: &mut State, body: &Value) -> Answer {
    let wish = match Wish::read(body) {
        Ok(wish) => wish,
        Err(refusal) => return refusal,
    };
    let (Some(name), Some(password), Some(privilege)) = (wish.name, wish.password, wish.privilege) else {
        let id = "Base.1.12.CreateFailedMissingReqProperties";
        return Answer::refusal(400, id, "UserName, Password and RoleId are required.");
    };
    if state.accounts.iter().any(|account| account.name == name) {
        return Answer::refusal(400, "Base.1.12.ResourceAlreadyExists", "There is an account of that name.");
    }
    let free = state.accounts.iter().position(|account| account.name.is_empty()).unwrap_or(state.accounts.len());
    if free >= ACCOUNTS_MAX {
        return Answer::refusal(400, "Base.1.12.CreateLimitReachedForResource", "There are no accounts left.");
    }
    let enabled = wish.enabled.unwrap_or(true);
    let account = Account { name, password, privilege, enabled, messaging: true };
    match state.accounts.get_mut(free) {
        Some(place) => *place = account,
        None => state.accounts.push(account),
    }
    state.version += 1;
    let path = format!("/redfish/v1/AccountService/Accounts/{}", free + 1);
    let body = resource(state, &path, free + 1);
    Answer { body, ..Answer::status(201) }.with("Location", path)
}

/// Changes one.
pub(super) fn change(state: &mut State, path: &str, body: &Value) -> Answer {
    let wish = match Wish::read(body) {
        Ok(wish) => wish,
        Err(refusal) => return refusal,
    };
    let Some(account) = place(path).and_then(|place| state.accounts.get_mut(place)) else { return missing() };
    if let Some(name) = wish.name {
        account.name = name;
    }
    if let Some(password) = wish.password {
        account.password = password;
    }
    account.privilege = wish.privilege.unwrap_or(account.privilege);
    account.enabled = wish.enabled.unwrap_or(account.enabled);
    state.version += 1;
    Answer::status(204)
}

/// Takes one away.
pub(super) fn delete(state: &mut State, path: &str) -> Answer {
    let account = place(path).and_then(|place| state.accounts.get_mut(place));
    let Some(account) = account.filter(|account| !account.name.is_empty()) else { return missing() };
    *account = Account::unused();
    state.version += 1;
    Answer::status(204)
}
