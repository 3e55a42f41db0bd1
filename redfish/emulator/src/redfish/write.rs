//! What changes something: actions, overrides, media, sessions, passwords.

use super::accounts;
use super::answer::Answer;
use super::tree::{Paths, etag, settings_path};
use crate::misbehaviour::Misbehaviour;
use crate::model::{Already, BootAt};
use crate::state::{Session, State, accepted};
use machine::{BmcError, BmcFault, BmcRequest, BootOverride, Power, StageRead};
use serde_json::{Value, json};
use std::time::Duration;

/// Opens a session.
pub(super) fn login(state: &mut State, at: u64, body: &Value) -> Answer {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    state.counted.credentials += 1;
    let right = state.right(text("UserName"), text("Password").as_bytes());
    let id = match state.machine.bmc_login(at, right) {
        Ok(id) => id,
        Err(BmcError::Busy) => {
            let id = "Base.1.12.SessionLimitExceeded";
            return Answer::refusal(503, id, "The session limit is reached.");
        }
        Err(_) => return Answer::refusal(401, "Base.1.12.ResourceAtUriUnauthorized", "Wrong user or password."),
    };
    state.counted.sessions_opened += 1;
    let token = super::http::token();
    let session = Session { id, token: token.clone(), user: text("UserName").to_owned() };
    let answer = Answer { body: Some(super::tree::session(&session)), ..Answer::status(201) };
    if !state.has(Misbehaviour::ForgetsTokens) {
        state.sessions.push(session);
    }
    let path = format!("/redfish/v1/SessionService/Sessions/{id}");
    answer.with("X-Auth-Token", token).with("Location", located(state, path))
}

/// Where something is said to be that is at this path.
fn located(state: &State, path: String) -> String {
    if state.has(Misbehaviour::ForeignLocation) { format!("https://203.0.113.9{path}") } else { path }
}

/// Closes a session, or takes an account away.
pub(super) fn delete(state: &mut State, at: u64, path: &str) -> Answer {
    if path.starts_with("/redfish/v1/AccountService/Accounts/") {
        return accounts::delete(state, path);
    }
    let id = path.strip_prefix("/redfish/v1/SessionService/Sessions/").and_then(|id| id.parse::<u32>().ok());
    let Some(id) = id.filter(|id| state.sessions.iter().any(|session| session.id == *id)) else {
        return Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such resource.");
    };
    state.sessions.retain(|session| session.id != id);
    state.machine.bmc_logout(at, id);
    Answer::status(204)
}

/// Does an action.
pub(super) fn post(state: &mut State, at: u64, path: &str, body: &Value, if_match: Option<&str>) -> Answer {
    let paths = Paths::of(&state.model);
    if state.model.action_refuses_if_match && if_match.is_some() {
        return Answer::refusal(412, "Base.1.12.PreconditionFailed", "The ETag did not match.");
    }
    if matches!(path, "/redfish/v1/AccountService/Accounts" | "/redfish/v1/AccountService/Accounts/Members") {
        return accounts::create(state, body);
    }
    if path == format!("{}/{}/Actions/LogService.ClearLog", paths.log, state.model.log_id) {
        state.clear_events(at);
        return Answer::status(204);
    }
    let media = format!("{}/{}/Actions/VirtualMedia", paths.media, state.model.media_id);
    if path == format!("{}/Actions/ComputerSystem.Reset", paths.system) {
        return reset(state, at, body);
    }
    if path == format!("{}/Actions/Manager.Reset", paths.manager) {
        let outcome = state.ask(at, BmcRequest::Reset);
        state.sessions.clear();
        return if accepted(&outcome).is_ok() { Answer::status(204) } else { Answer::status(503) };
    }
    if path == format!("{media}.InsertMedia") {
        let Some(image) = body.get("Image").and_then(Value::as_str).filter(|image| !image.is_empty()) else {
            return Answer::refusal(400, "Base.1.12.ActionParameterMissing", "Image is missing.");
        };
        if state.media.is_some() {
            return Answer::refusal(409, "Base.1.12.ResourceInUse", "The drive is in use.");
        }
        state.media = Some(image.to_owned());
        return Answer::status(204);
    }
    if path == format!("{media}.EjectMedia") {
        state.media = None;
        return Answer::status(204);
    }
    Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such action.")
}

fn reset(state: &mut State, at: u64, body: &Value) -> Answer {
    let word = body.get("ResetType").and_then(Value::as_str).unwrap_or_default();
    if !state.model.resets.contains(&word) {
        let id = "Base.1.12.ActionParameterValueNotInList";
        return Answer::refusal(400, id, "The value is not in the list of acceptable values.");
    }
    let request = match word {
        "On" | "ForceOn" => BmcRequest::PowerOn,
        "ForceOff" => BmcRequest::ForceOff,
        "GracefulShutdown" => BmcRequest::GracefulShutdown,
        "GracefulRestart" => BmcRequest::GracefulRestart,
        "Nmi" => {
            state.counted.interrupts += 1;
            return Answer::status(204);
        }
        "PushPowerButton" if state.machine.power() == Power::Off => BmcRequest::PowerOn,
        "PushPowerButton" => BmcRequest::GracefulShutdown,
        _ => BmcRequest::ForceRestart,
    };
    let power = state.machine.power();
    let already = match request {
        BmcRequest::ForceOff | BmcRequest::GracefulShutdown => power == Power::Off,
        BmcRequest::PowerOn => power == Power::On,
        _ => false,
    };
    if already {
        match state.model.already {
            Already::Accepts => {}
            Already::Conflict => {
                count(state, request);
                return Answer::refusal(409, "IDRAC.2.7.PSU501", "Server is already powered so.");
            }
            Already::InvalidState => {
                count(state, request);
                let id = "iLO.2.14.InvalidOperationForSystemState";
                return Answer::refusal(400, id, "The operation was not successful due to the current power state.");
            }
        }
    }
    let outcome = state.ask(at, request);
    let after = Duration::from_millis(outcome.arrives_at.saturating_sub(at)).min(Duration::from_secs(5));
    let answer = match accepted(&outcome) {
        Ok(true) => match state.begin_task(at) {
            Some(number) => {
                let path = format!("/redfish/v1/TaskService/Tasks/{number}");
                Answer { body: Some(json!({ "@odata.id": path, "TaskState": "New" })), ..Answer::status(202) }
                    .with("Location", located(state, path))
            }
            None => Answer::status(204),
        },
        Ok(false) => {
            let id = "Base.1.12.ActionParameterValueConflict";
            Answer::refusal(409, id, "The action cannot be done in the present state.")
        }
        Err(BmcError::Busy) => {
            Answer::refusal(503, "IDRAC.2.7.SYS518", "The server is not ready.").with("Retry-After", "2")
        }
        Err(BmcError::Refused) => Answer::status(401),
        Err(BmcError::Silent | BmcError::ReplyLost) => Answer { lost: true, ..Answer::status(204) },
    };
    let lost = answer.lost || state.has(Misbehaviour::PowerReplyLost);
    Answer { after, lost, ..answer }
}

/// Counts a command that was refused for being done already.
fn count(state: &mut State, request: BmcRequest) {
    match request {
        BmcRequest::ForceOff => state.counted.offs += 1,
        BmcRequest::PowerOn => state.counted.ons += 1,
        _ => state.counted.shutdowns += 1,
    }
}

/// Changes a resource.
pub(super) fn patch(state: &mut State, at: u64, path: &str, body: &Value, if_match: Option<&str>) -> Answer {
    let model = state.model;
    let paths = Paths::of(&model);
    if state.has(Misbehaviour::NoEtagFits) {
        return Answer::refusal(412, "Base.1.12.PreconditionFailed", "The ETag did not match.");
    }
    let now = etag(&model, path, state.version);
    match (if_match, &now) {
        (None, _) if model.if_match_required => {
            return Answer::refusal(428, "Base.1.12.PreconditionRequired", "If-Match is required.");
        }
        (Some(given), Some(now)) => {
            let bare = |tag: &str| tag.trim_start_matches("W/").to_owned();
            let weak = given.starts_with("W/");
            if given != "*" && (bare(given) != bare(now) || (model.strong_only && weak)) {
                return Answer::refusal(412, "Base.1.12.PreconditionFailed", "The ETag did not match.");
            }
        }
        _ => {}
    }
    if path.starts_with("/redfish/v1/AccountService/Accounts/") {
        return accounts::change(state, path, body);
    }
    let settings = settings_path(&model, &paths);
    let at_settings = settings.as_deref() == Some(path);
    if path != paths.system && !at_settings {
        return Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such resource.");
    }
    if let (BootAt::FutureState(_), false) = (model.boot_at, at_settings) {
        let id = "Ami.1.0.OperationSupportedInFutureStateURI";
        return Answer::refusal(400, id, "The operation is supported at the future state URI.");
    }
    boot(state, at, body)
}

fn boot(state: &mut State, at: u64, body: &Value) -> Answer {
    let model = state.model;
    let field = |name: &str| body.get("Boot").and_then(|boot| boot.get(name)).and_then(Value::as_str);
    let (target, enabled, mode) =
        (field("BootSourceOverrideTarget"), field("BootSourceOverrideEnabled"), field("BootSourceOverrideMode"));
    let not_in_list = |what: &str| {
        Answer::refusal(400, "Base.1.12.PropertyValueNotInList", &format!("The value of {what} is not acceptable."))
    };
    if target.is_some_and(|target| !model.boot_targets.contains(&target)) {
        return not_in_list("BootSourceOverrideTarget");
    }
    if model.boot_once_only && enabled == Some("Continuous") {
        return not_in_list("BootSourceOverrideEnabled");
    }
    if mode.is_some() && !model.boot_mode {
        return Answer::refusal(400, "Base.1.12.PropertyUnknown", "BootSourceOverrideMode is unknown.");
    }
    let disables = enabled == Some("Disabled");
    if model.boot_whole_only && !disables && (target.is_none() || enabled.is_none() || mode.is_none()) {
        return Answer::refusal(400, "Base.1.12.PropertyMissing", "The Boot object is not complete.");
    }
    if model.boot_not_in_post && state.machine.bmc_stage(at) == StageRead::Post {
        let id = "iLO.2.14.UnableToModifyDuringSystemPOST";
        return Answer::refusal(400, id, "The property cannot be changed during the self test.");
    }
    let boot = match target {
        _ if disables => BootOverride::None,
        Some("Pxe") => BootOverride::NetworkOnce,
        Some("UefiHttp") => BootOverride::HttpOnce,
        Some("Cd" | "UsbCd") => BootOverride::VirtualMediaOnce,
        Some("Hdd") => BootOverride::DiskOnce,
        _ => BootOverride::None,
    };
    let outcome = state.ask(at, BmcRequest::SetBootOnce(boot));
    if let Err(BmcError::Busy) = accepted(&outcome) {
        return Answer::refusal(400, "iLO.2.14.UnableToModifyDuringSystemPOST", "Not during the self test.");
    }
    if state.has(Misbehaviour::BootNotSet) {
        return Answer::status(204);
    }
    if let Some(target) = target {
        target.clone_into(&mut state.boot.target);
    }
    if let Some(enabled) = enabled {
        let forever = enabled == "Once" && state.has(Misbehaviour::BootSetForever);
        if forever {
            state.machine.inject_bmc(at, BmcFault::KeepsBoot);
        }
        let kept = if forever { "Continuous" } else { enabled };
        kept.clone_into(&mut state.boot.enabled);
    }
    if disables {
        "None".clone_into(&mut state.boot.target);
    }
    match mode {
        Some(mode) => mode.clone_into(&mut state.boot.mode),
        None if model.boot_mode_wanted => "Legacy".clone_into(&mut state.boot.mode),
        None => {}
    }
    state.boot.uri = field("HttpBootUri").map(str::to_owned);
    Answer::status(204)
}
