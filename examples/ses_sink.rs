//! An SES endpoint that takes so many messages and ends: `cargo run --example ses_sink -- PORT MESSAGES`.
//!
//! The bench hands mail to it. It is the sandbox's, so it wants what SES wants and keeps no content.

use std::net::{Ipv4Addr, SocketAddr};

use postrider::sandbox::{SandboxSes, SesSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(messages)) = (arguments.next(), arguments.next()) else {
        return Err("usage: ses_sink PORT MESSAGES".into());
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    // An account without limits: it is the gateway that is measured.
    let settings = SesSettings { address, max_24_hour_send: -1.0, max_send_rate: 1e6, ..SesSettings::default() };
    let ses = SandboxSes::start(settings).await?;
    ses.recorder().reached(messages.parse()?).await;
    Ok(())
}
