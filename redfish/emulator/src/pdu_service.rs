//! The Redfish of a power distribution unit (DSP0268: PowerEquipment, PowerDistribution, Outlet).

use crate::pdu::{PduHandle, Unit};
use crate::redfish::answer::Answer;
use crate::redfish::http::{self, Asked};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const UNITS: &str = "/redfish/v1/PowerEquipment/RackPDUs";
const OUTLETS: &str = "/redfish/v1/PowerEquipment/RackPDUs/1/Outlets";
/// A client that begins and says nothing is let go.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

/// Serves until its task is aborted.
pub(crate) async fn serve(listener: TcpListener, handle: PduHandle, acceptor: TlsAcceptor) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (handle, acceptor) = (handle.clone(), acceptor.clone());
        tokio::spawn(async move {
            let talk = async {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let handle = handle.clone();
                    async move {
                        let asked = Asked::read(request).await;
                        let answer = judge(&mut handle.lock(), &asked);
                        let body = http::bytes(&answer);
                        Ok::<_, Infallible>(http::response(answer.status, &answer.headers, body))
                    }
                });
                let stream = TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
            };
            let _ = tokio::time::timeout(CLIENT_LIMIT, talk).await;
        });
    }
}

fn judge(unit: &mut Unit, asked: &Asked) -> Answer {
    let path = asked.path.trim_end_matches('/');
    let method = asked.method.as_str();
    let open = matches!(method, "GET" | "HEAD") && matches!(path, "/redfish" | "/redfish/v1");
    let logs_in = method == "POST" && path == SESSIONS;
    if !open && !logs_in && !is_known(unit, asked) {
        return Answer::refusal(401, "Base.1.12.ResourceAtUriUnauthorized", "Log in first.");
    }
    match method {
        "GET" | "HEAD" => match resource(unit, path) {
            Some(body) => Answer::resource(body),
            None => Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such resource."),
        },
        "POST" if logs_in => login(unit, &asked.body),
        "POST" => control(unit, path, &asked.body),
        "DELETE" => logout(unit, path),
        _ => Answer::status(405),
    }
}

fn is_known(unit: &Unit, asked: &Asked) -> bool {
    if let Some(token) = &asked.token {
        return unit.sessions.iter().any(|(_, known)| known == token);
    }
    let credential = asked.basic.as_deref().and_then(http::credential);
    credential.is_some_and(|(user, password)| unit.right(&user, &password))
}

fn login(unit: &mut Unit, body: &Value) -> Answer {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    if !unit.right(text("UserName"), text("Password").as_bytes()) {
        return Answer::refusal(401, "Base.1.12.ResourceAtUriUnauthorized", "Wrong user or password.");
    }
    unit.last_session += 1;
    let (id, token) = (unit.last_session, http::token());
    unit.sessions.push((id, token.clone()));
    let path = format!("{SESSIONS}/{id}");
    let body = json!({ "@odata.id": path, "Id": id.to_string(), "Name": "Session" });
    Answer { body: Some(body), ..Answer::status(201) }.with("X-Auth-Token", token).with("Location", path)
}

fn logout(unit: &mut Unit, path: &str) -> Answer {
    let id = path.strip_prefix(SESSIONS).and_then(|rest| rest.strip_prefix('/')).and_then(|id| id.parse::<u32>().ok());
    let before = unit.sessions.len();
    unit.sessions.retain(|(known, _)| Some(*known) != id);
    if unit.sessions.len() < before {
        Answer::status(204)
    } else {
        Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such session.")
    }
}

/// The place of an outlet and what of it is meant.
fn outlet_of(path: &str) -> Option<(usize, &str)> {
    let rest = path.strip_prefix(OUTLETS)?.strip_prefix("/OUTLET")?;
    let (number, rest) = rest.split_once('/').unwrap_or((rest, ""));
    Some((number.parse::<usize>().ok()?.checked_sub(1)?, rest))
}

fn control(unit: &mut Unit, path: &str, body: &Value) -> Answer {
    let outlet =
        outlet_of(path).filter(|(place, rest)| *rest == "Actions/Outlet.PowerControl" && *place < unit.outlets.len());
    let Some((place, _)) = outlet else {
        return Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such action.");
    };
    match body.get("PowerState").and_then(Value::as_str) {
        Some("On") => unit.switch(place, true),
        Some("Off") => unit.switch(place, false),
        Some("PowerCycle") => {
            unit.switch(place, false);
            unit.switch(place, true);
        }
        Some(_) => {
            let id = "Base.1.12.ActionParameterValueNotInList";
            return Answer::refusal(400, id, "The value is not in the list of acceptable values.");
        }
        None => return Answer::refusal(400, "Base.1.12.ActionParameterMissing", "PowerState is missing."),
    }
    Answer::status(204)
}

fn collection(path: &str, kind: &str, members: impl Iterator<Item = String>) -> Value {
    let members: Vec<Value> = members.map(|member| json!({ "@odata.id": member })).collect();
    json!({ "@odata.id": path, "@odata.type": format!("#{kind}Collection.{kind}Collection"),
        "Name": format!("{kind} Collection"), "Members@odata.count": members.len(), "Members": members })
}

fn resource(unit: &Unit, path: &str) -> Option<Value> {
    Some(match path {
        "/redfish" => json!({ "v1": "/redfish/v1/" }),
        "/redfish/v1" => json!({
            "@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_14_0.ServiceRoot", "Id": "RootService",
            "Name": "Root Service", "RedfishVersion": "1.14.0", "Vendor": "Generic", "Product": "Rack PDU",
            "UUID": "22222222-3333-4444-5555-666666666666",
            "PowerEquipment": { "@odata.id": "/redfish/v1/PowerEquipment" },
            "SessionService": { "@odata.id": "/redfish/v1/SessionService" },
            "Links": { "Sessions": { "@odata.id": SESSIONS } },
        }),
        "/redfish/v1/SessionService" => json!({ "@odata.id": path, "Id": "SessionService", "Name": "Session Service",
            "@odata.type": "#SessionService.v1_1_8.SessionService", "Sessions": { "@odata.id": SESSIONS } }),
        SESSIONS => collection(path, "Session", unit.sessions.iter().map(|(id, _)| format!("{SESSIONS}/{id}"))),
        "/redfish/v1/PowerEquipment" => json!({ "@odata.id": path, "Id": "PowerEquipment", "Name": "Power Equipment",
            "@odata.type": "#PowerEquipment.v1_2_0.PowerEquipment", "RackPDUs": { "@odata.id": UNITS } }),
        UNITS => collection(path, "PowerDistribution", std::iter::once(format!("{UNITS}/1"))),
        "/redfish/v1/PowerEquipment/RackPDUs/1" => json!({ "@odata.id": path, "Id": "1", "Name": "Rack PDU",
            "@odata.type": "#PowerDistribution.v1_3_0.PowerDistribution", "EquipmentType": "RackPDU",
            "Manufacturer": "Generic", "Model": "Switched", "SerialNumber": "PDU-0001", "FirmwareVersion": "1.0",
            "Status": { "State": "Enabled", "Health": "OK" }, "Outlets": { "@odata.id": OUTLETS } }),
        OUTLETS => {
            collection(path, "Outlet", (1..=unit.outlets.len()).map(|number| format!("{OUTLETS}/OUTLET{number}")))
        }
        _ => return outlet(unit, path),
    })
}

fn outlet(unit: &Unit, path: &str) -> Option<Value> {
    let (place, _) = outlet_of(path).filter(|(_, rest)| rest.is_empty())?;
    let outlet = unit.outlets.get(place)?;
    let id = format!("OUTLET{}", place + 1);
    let word = if outlet.says_on { "On" } else { "Off" };
    Some(json!({ "@odata.id": path, "@odata.type": "#Outlet.v1_4_0.Outlet", "Id": id,
        "Name": format!("Outlet {}", place + 1), "OutletType": "IEC_60320_C13", "PhaseWiringType": "OnePhase3Wire",
        "PowerState": word, "PowerEnabled": outlet.says_on, "Status": { "State": "Enabled", "Health": "OK" },
        "PowerWatts": { "Reading": unit.watts(place) },
        "Actions": { "#Outlet.PowerControl": { "target": format!("{path}/Actions/Outlet.PowerControl"),
            "PowerState@Redfish.AllowableValues": ["On", "Off", "PowerCycle"] } } }))
}
