//! The resources, made anew for each read.

use super::{accounts, sensors, service};
use crate::misbehaviour::Misbehaviour;
use crate::model::{BootAt, Etag, Model};
use crate::state::{Session, State};
use machine::{BmcEvent, BmcEventKind, BmcReply, BmcRequest, Power, StageRead};
use serde_json::{Map, Value, json};

/// Entries of the event log on a page.
const PAGE: usize = 10;

pub(super) fn id(path: impl AsRef<str>) -> Value {
    json!({ "@odata.id": path.as_ref() })
}

pub(super) fn collection(path: &str, members: &[String]) -> Value {
    let list: Vec<Value> = members.iter().map(id).collect();
    json!({ "@odata.id": path, "Members": list, "Members@odata.count": members.len() })
}

/// Paths of a model.
pub(super) struct Paths {
    pub(super) system: String,
    pub(super) chassis: String,
    pub(super) manager: String,
    pub(super) media: String,
    pub(super) log: String,
}

impl Paths {
    pub(super) fn of(model: &Model) -> Paths {
        let system = format!("/redfish/v1/Systems/{}", model.system_id);
        let manager = format!("/redfish/v1/Managers/{}", model.manager_id);
        let media = format!("{}/VirtualMedia", if model.media_at_system { &system } else { &manager });
        let log = format!("{system}/LogServices");
        Paths { chassis: format!("/redfish/v1/Chassis/{}", model.chassis_id), system, manager, media, log }
    }
}

/// The UUID as text.
fn uuid(identity: u128) -> String {
    let digits = format!("{identity:032X}");
    let cut = |a: usize, b: usize| digits.get(a..b).unwrap_or_default().to_owned();
    [cut(0, 8), cut(8, 12), cut(12, 16), cut(16, 20), cut(20, 32)].join("-")
}

/// The resource at a path without its query.
pub(crate) fn resource(state: &mut State, at: u64, path: &str, query: &str) -> Option<Value> {
    let model = state.model;
    let paths = Paths::of(&model);
    let path = path.trim_end_matches('/');
    let found = match path {
        "/redfish" => return Some(json!({ "v1": "/redfish/v1/" })),
        "/redfish/v1" => root(state),
        "/redfish/v1/Systems" => {
            let mut members = vec![paths.system.clone()];
            if state.has(Misbehaviour::WrongSystemFirst) {
                members.insert(0, "/redfish/v1/Systems/HGX_Baseboard_0".to_owned());
            }
            if state.has(Misbehaviour::ForeignLinks) {
                members.insert(0, "https://203.0.113.9/redfish/v1/Systems/1".to_owned());
            }
            collection(path, &members)
        }
        "/redfish/v1/Systems/HGX_Baseboard_0" if state.has(Misbehaviour::WrongSystemFirst) => {
            json!({ "@odata.id": path, "Id": "HGX_Baseboard_0", "PowerState": "Off",
                "UUID": "DEADBEEF-0000-0000-0000-000000000000" })
        }
        "/redfish/v1/Chassis" => collection(path, std::slice::from_ref(&paths.chassis)),
        "/redfish/v1/Managers" => collection(path, std::slice::from_ref(&paths.manager)),
        "/redfish/v1/SessionService" => {
            json!({ "@odata.id": path, "Sessions": id("/redfish/v1/SessionService/Sessions"), "SessionTimeout": 1800 })
        }
        "/redfish/v1/SessionService/Sessions" => {
            let members: Vec<String> = state.sessions.iter().map(|s| format!("{path}/{}", s.id)).collect();
            collection(path, &members)
        }
        "/redfish/v1/AccountService" => {
            json!({ "@odata.id": path, "@odata.type": "#AccountService.v1_10_0.AccountService", "ServiceEnabled": true,
                "MinPasswordLength": 8, "Accounts": id("/redfish/v1/AccountService/Accounts"),
                "Roles": id("/redfish/v1/AccountService/Roles") })
        }
        "/redfish/v1/AccountService/Accounts" => {
            let named = state.accounts.iter().enumerate().filter(|(_, account)| !account.name.is_empty());
            let members: Vec<String> = named.map(|(place, _)| format!("{path}/{}", place + 1)).collect();
            collection(path, &members)
        }
        "/redfish/v1/TaskService" => {
            json!({ "@odata.id": path, "ServiceEnabled": true, "Tasks": id("/redfish/v1/TaskService/Tasks") })
        }
        "/redfish/v1/TaskService/Tasks" => {
            let members: Vec<String> = state.tasks.keys().map(|number| format!("{path}/{number}")).collect();
            collection(path, &members)
        }
        _ if path == paths.system => system(state, at, &paths),
        _ if path == paths.chassis => chassis(state, at, &paths),
        _ if path == format!("{}/Thermal", paths.chassis) => sensors::thermal(&state.machine, path),
        _ if path == format!("{}/Power", paths.chassis) => sensors::power(&state.machine, path),
        _ if path == paths.manager => manager(&model, &paths),
        _ if path == format!("{}/ResetActionInfo", paths.system) && model.action_info => json!({ "@odata.id": path,
            "Parameters": [{ "Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": model.resets }] }),
        _ if settings_path(&model, &paths).as_deref() == Some(path) => {
            json!({ "@odata.id": path, "Id": "Pending", "Boot": boot(state, at) })
        }
        _ if path == paths.media => collection(path, &[format!("{path}/{}", model.media_id)]),
        _ if path == format!("{}/{}", paths.media, model.media_id) => media(state, path),
        _ if path == paths.log => {
            let bare = model.log_sel_bare.then_some("SEL");
            let logs = bare.into_iter().chain([model.log_id]);
            collection(path, &logs.map(|name| format!("{path}/{name}")).collect::<Vec<_>>())
        }
        _ if path == format!("{}/{}", paths.log, model.log_id) => {
            json!({ "@odata.id": path, "LogEntryType": "SEL", "Entries": id(format!("{path}/Entries")),
                "Actions": { "#LogService.ClearLog": { "target": format!("{path}/Actions/LogService.ClearLog") } } })
        }
        _ if model.log_sel_bare && path == format!("{}/SEL", paths.log) => {
            json!({ "@odata.id": path, "ServiceEnabled": true, "MaxNumberOfRecords": 511 })
        }
        _ if path == format!("{}/{}/Entries", paths.log, model.log_id) => entries(state, at, path, query),
        _ => {
            let found = service::roles(path)
                .or_else(|| sensors::collected(&state.machine, &paths, path))
                .or_else(|| numbered(state, at, path));
            return found.map(|found| tagged(found, &model, state.version));
        }
    };
    Some(tagged(found, &model, state.version))
}

/// The resource of the override where it is not at the system.
pub(super) fn settings_path(model: &Model, paths: &Paths) -> Option<String> {
    match model.boot_at {
        BootAt::System => None,
        BootAt::Settings(name) | BootAt::FutureState(name) => Some(format!("{}/{name}", paths.system)),
    }
}

/// The ETag of a resource as it is now.
pub(super) fn etag(model: &Model, path: &str, version: u64) -> Option<String> {
    let system_only_weak = path.len() as u64 + version * 7_919;
    match model.etag {
        // An account has one everywhere (DSP0266, section 6.5).
        Etag::None if path.starts_with("/redfish/v1/AccountService/Accounts/") => {
            Some(format!("\"{system_only_weak:012x}\""))
        }
        Etag::None => None,
        Etag::Weak => Some(format!("W/\"{system_only_weak:08X}\"")),
        Etag::Strong => Some(format!("\"{system_only_weak:012x}\"")),
    }
}

fn tagged(mut resource: Value, model: &Model, version: u64) -> Value {
    let path = resource.get("@odata.id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(object) = resource.as_object_mut() else { return resource };
    if let Some(tag) = etag(model, &path, version) {
        object.insert("@odata.etag".to_owned(), json!(tag));
    }
    // Each resource has a name and an id (DSP0266, section 9.5); clients insist.
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    object.entry("Name").or_insert_with(|| json!(last.clone()));
    object.entry("Id").or_insert_with(|| json!(last));
    resource
}

/// An open session.
pub(super) fn session(session: &Session) -> Value {
    json!({ "@odata.id": format!("/redfish/v1/SessionService/Sessions/{}", session.id), "Id": session.id.to_string(),
        "@odata.type": "#Session.v1_5_0.Session", "Name": "User Session", "UserName": session.user, "Password": null })
}

fn numbered(state: &State, at: u64, path: &str) -> Option<Value> {
    let (parent, number) = path.rsplit_once('/')?;
    let number: usize = number.parse().ok()?;
    let found = match parent {
        "/redfish/v1/SessionService/Sessions" => {
            session(state.sessions.iter().find(|session| session.id as usize == number)?)
        }
        "/redfish/v1/AccountService/Accounts" => accounts::resource(state, path, number)?,
        // The monitor shows the task itself: 202 while it runs.
        "/redfish/v1/TaskService/Tasks" | "/redfish/v1/TaskService/TaskMonitors" => {
            let (word, status) = state.tasks.get(&u32::try_from(number).ok()?)?.words(at);
            let text = if status == "OK" { "" } else { "The request failed." };
            json!({ "@odata.id": path, "Id": number.to_string(), "TaskState": word, "TaskStatus": status,
                "TaskMonitor": format!("/redfish/v1/TaskService/TaskMonitors/{number}"),
                "Messages": [{ "Message": text }] })
        }
        _ => return None,
    };
    Some(found)
}

fn root(state: &State) -> Value {
    let mut root = json!({
        "@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_9_0.ServiceRoot", "Id": "RootService",
        "Name": "Root Service", "RedfishVersion": "1.14.0", "UUID": uuid(state.identity()),
        "Systems": id("/redfish/v1/Systems"), "Chassis": id("/redfish/v1/Chassis"), "Managers": id("/redfish/v1/Managers"),
        "SessionService": id("/redfish/v1/SessionService"), "Tasks": id("/redfish/v1/TaskService"), "AccountService": id("/redfish/v1/AccountService"),
        "Links": { "Sessions": id("/redfish/v1/SessionService/Sessions") },
    });
    if let Some(object) = root.as_object_mut() {
        for (name, value) in [("Vendor", state.model.root_vendor), ("Product", state.model.root_product)] {
            if let Some(value) = value {
                object.insert(name.to_owned(), json!(value));
            }
        }
    }
    root
}

/// The word for a power.
fn word(power: Power, transient: bool) -> &'static str {
    match power {
        Power::On => "On",
        Power::Off => "Off",
        Power::GoingOff if transient => "PoweringOff",
        Power::GoingOff => "On",
    }
}

fn boot(state: &mut State, at: u64) -> Value {
    state.settle(at);
    let model = state.model;
    let mut boot = Map::new();
    boot.insert("BootSourceOverrideEnabled".to_owned(), json!(state.boot.enabled));
    boot.insert("BootSourceOverrideTarget".to_owned(), json!(state.boot.target));
    boot.insert("BootSourceOverrideTarget@Redfish.AllowableValues".to_owned(), json!(model.boot_targets));
    if model.boot_mode {
        boot.insert("BootSourceOverrideMode".to_owned(), json!(state.boot.mode));
    }
    if model.boot_once_only {
        boot.insert("BootSourceOverrideEnabled@Redfish.AllowableValues".to_owned(), json!(["Once", "Disabled"]));
    }
    if model.boot_targets.contains(&"UefiHttp") {
        boot.insert("HttpBootUri".to_owned(), json!(state.boot.uri));
    }
    Value::Object(boot)
}

fn system(state: &mut State, at: u64, paths: &Paths) -> Value {
    let model = state.model;
    let read = match state.ask(at, BmcRequest::ReadPower).result {
        Ok(BmcReply::Power(read)) => Some(read),
        _ => None,
    };
    let stage = state.machine.bmc_stage(at);
    let health = if state.machine.hardware().is_some() { "Critical" } else { "OK" };
    let target = format!("{}/Actions/ComputerSystem.Reset", paths.system);
    let target = if state.has(Misbehaviour::ForeignLinks) { format!("https://203.0.113.9{target}") } else { target };
    let mut reset = json!({ "target": target });
    if let Some(reset) = reset.as_object_mut() {
        if model.action_info {
            reset.insert("@Redfish.ActionInfo".to_owned(), json!(format!("{}/ResetActionInfo", paths.system)));
        } else {
            reset.insert("ResetType@Redfish.AllowableValues".to_owned(), json!(model.resets));
        }
    }
    let spec = state.machine.spec().clone();
    let mut system = json!({
        "@odata.id": paths.system, "Id": model.system_id, "Name": "System", "SystemType": "Physical",
        "Manufacturer": model.manufacturer, "Model": model.system_model, "SerialNumber": spec.serial,
        "BiosVersion": "1.8.2", "Status": { "State": "Enabled", "Health": health },
        "Boot": boot(state, at), "Actions": { "#ComputerSystem.Reset": reset },
        "LogServices": id(&paths.log),
        "Links": { "Chassis": [id(&paths.chassis)], "ManagedBy": [id(&paths.manager)] },
    });
    let Some(object) = system.as_object_mut() else { return system };
    if let Some(read) = read {
        if read.identity != 0 {
            object.insert("UUID".to_owned(), json!(uuid(state.shown(read.identity))));
        }
        let power = word(read.power, model.transient);
        let shown = power_word(state, power);
        if let Some(shown) = shown {
            object.insert("PowerState".to_owned(), shown);
        }
    }
    if model.boot_progress {
        let last = match stage {
            StageRead::None | StageRead::ShuttingDown | StageRead::FirmwareTask => "None",
            StageRead::Post => "SystemHardwareInitializationComplete",
            StageRead::Starting => "OSBootStarted",
            StageRead::Running => "OSRunning",
        };
        object.insert("BootProgress".to_owned(), json!({ "LastState": last }));
    }
    if model.post_state {
        let word = match stage {
            StageRead::Post => "InPost",
            StageRead::None => "PowerOff",
            _ => "FinishedPost",
        };
        object.insert("Oem".to_owned(), json!({ "Hpe": { "PostState": word } }));
    }
    if model.media_at_system {
        object.insert("VirtualMedia".to_owned(), id(&paths.media));
    }
    if let BootAt::Settings(name) | BootAt::FutureState(name) = model.boot_at {
        let settings = id(format!("{}/{name}", paths.system));
        object.insert("@Redfish.Settings".to_owned(), json!({ "SettingsObject": settings }));
    }
    system
}

/// The power state as it is shown, with what is wrong about it; `None` = left out.
pub(super) fn power_word(state: &State, word: &str) -> Option<Value> {
    if state.has(Misbehaviour::PowerStateNull) {
        Some(Value::Null)
    } else if state.has(Misbehaviour::PowerStateMissing) {
        None
    } else if state.has(Misbehaviour::PowerStateMistyped) {
        Some(json!(if word == "Off" { 0 } else { 1 }))
    } else if state.has(Misbehaviour::PowerStateLowerCase) {
        Some(json!(word.to_lowercase()))
    } else if state.has(Misbehaviour::PowerStateHangs) && word == "Off" {
        Some(json!("PoweringOff"))
    } else {
        Some(json!(word))
    }
}

fn chassis(state: &mut State, at: u64, paths: &Paths) -> Value {
    let model = state.model;
    let (said, truth) = state.power(at);
    let shown = if state.has(Misbehaviour::ChassisAgrees) { said } else { truth };
    // A chassis has no transitions: what is on its way is still on.
    let word = if shown == Power::Off { "Off" } else { "On" };
    json!({
        "@odata.id": paths.chassis, "Id": model.chassis_id, "ChassisType": "RackMount", "PowerState": word,
        "SerialNumber": state.machine.spec().serial, "Thermal": id(format!("{}/Thermal", paths.chassis)),
        "Power": id(format!("{}/Power", paths.chassis)), "Sensors": id(format!("{}/Sensors", paths.chassis)),
        "Links": { "ComputerSystems": [id(&paths.system)], "ManagedBy": [id(&paths.manager)] },
    })
}

fn manager(model: &Model, paths: &Paths) -> Value {
    let mut manager = json!({
        "@odata.id": paths.manager, "Id": model.manager_id, "ManagerType": "BMC", "FirmwareVersion": model.firmware,
        "Actions": { "#Manager.Reset": { "target": format!("{}/Actions/Manager.Reset", paths.manager),
            "ResetType@Redfish.AllowableValues": ["GracefulRestart", "ForceRestart"] } },
        "Links": { "ManagerForServers": [id(&paths.system)], "ManagerForChassis": [id(&paths.chassis)] },
    });
    if let Some(object) = manager.as_object_mut() {
        if let Some(name) = model.manager_model {
            object.insert("Model".to_owned(), json!(name));
        }
        if !model.media_at_system {
            object.insert("VirtualMedia".to_owned(), id(&paths.media));
        }
    }
    manager
}

fn media(state: &State, path: &str) -> Value {
    let inserted = state.media.is_some();
    json!({ "@odata.id": path, "Id": state.model.media_id, "MediaTypes": ["CD", "DVD"], "Image": state.media,
        "Inserted": inserted, "ConnectedVia": if inserted { "URI" } else { "NotConnected" }, "WriteProtected": true,
        "Actions": { "#VirtualMedia.InsertMedia": { "target": format!("{path}/Actions/VirtualMedia.InsertMedia") },
            "#VirtualMedia.EjectMedia": { "target": format!("{path}/Actions/VirtualMedia.EjectMedia") } } })
}

fn entries(state: &mut State, at: u64, path: &str, query: &str) -> Value {
    let events = state.events(at);
    let skip =
        query.split('&').find_map(|pair| pair.strip_prefix("$skip=")).and_then(|n| n.parse().ok()).unwrap_or(0usize);
    let members: Vec<Value> = events.iter().skip(skip).take(PAGE).map(|event| entry(path, event)).collect();
    let mut page = json!({ "@odata.id": path, "Members@odata.count": events.len(), "Members": members });
    // In a circle, each page names the first.
    let circle = state.has(Misbehaviour::EndlessLog).then_some(0);
    let next = circle.or(Some(skip.saturating_add(PAGE)).filter(|next| *next < events.len()));
    if let (Some(next), Some(object)) = (next, page.as_object_mut()) {
        object.insert("Members@odata.nextLink".to_owned(), json!(format!("{path}?$skip={next}")));
    }
    page
}

fn entry(path: &str, event: &BmcEvent) -> Value {
    let (severity, text) = match event.kind {
        BmcEventKind::PoweredOff(cause) => ("OK", format!("The system was powered off ({cause:?}).")),
        BmcEventKind::PoweredOn => ("OK", "The system was powered on.".to_owned()),
        BmcEventKind::Reset => ("OK", "The system was reset.".to_owned()),
        BmcEventKind::PostBegan => ("OK", "The self test began.".to_owned()),
        BmcEventKind::ShuttingDown => ("OK", "The operating system shuts down.".to_owned()),
        BmcEventKind::HardwareFailed(kind) => ("Critical", format!("Hardware failed: {kind:?}.")),
        BmcEventKind::BmcRestarted => ("Warning", "The management controller was restarted.".to_owned()),
    };
    let seconds = i64::from(u32::try_from(event.at / 1_000).unwrap_or(u32::MAX)) % 86_400;
    let created = format!("2026-01-01T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    json!({ "@odata.id": format!("{path}/{}", event.id), "Id": event.id.to_string(), "EntryType": "SEL",
        "Created": created, "Severity": severity, "Message": text })
}
