//! Slow clients, on paused time: what they may, and what ends their session.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// The start of a message, up to the content.
const BEGIN: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";

/// Says `start`, and then `piece` again and again with a pause before each, until the session ends.
/// Gives the last reply, and how long it took.
async fn drip(gate: &Gate, client: &str, start: &[u8], piece: &[u8], pause: Duration) -> (String, Duration) {
    let (mut read, mut write) = tokio::io::split(gate.connect_from(client));
    let begun = Instant::now();
    write.write_all(start).await.unwrap();
    let piece = piece.to_vec();
    let dripping = tokio::spawn(async move {
        loop {
            tokio::time::sleep(pause).await;
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let mut output = String::new();
    read.read_to_string(&mut output).await.unwrap();
    let took = begun.elapsed();
    dripping.abort();
    (output.lines().last().unwrap_or_default().to_owned(), took)
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_octet_by_octet_is_cut_off() {
    //= https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.2.7
    //= type=test
    //# An SMTP server SHOULD have a timeout of at least 5 minutes while it
    //# is awaiting the next command from the sender.
    let (last, took) = drip(&gate(), "127.0.0.1", b"EHLO x\r\n", b"N", MINUTE).await;
    assert_eq!(last, "421 4.4.2 Too slow, closing");
    assert_eq!(took, 6 * MINUTE, "a minute of silence, and five for the line");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_too_long_and_never_ends_is_cut_off() {
    let (last, took) = drip(&gate(), "127.0.0.1", b"EHLO x\r\n", &[b'x'; 5000], MINUTE).await;
    assert_eq!((last.as_str(), took), ("421 4.4.2 Too slow, closing", 6 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_whole_commands_in_time_stays() {
    let mut client = gate().connect_from("127.0.0.1");
    let mut output = Vec::new();
    for _ in 0..20 {
        tokio::time::sleep(4 * MINUTE).await;
        client.write_all(b"NO").await.unwrap();
        tokio::time::sleep(4 * MINUTE).await;
        client.write_all(b"OP\r\n").await.unwrap();
        output.clear();
        client.read_buf(&mut output).await.unwrap();
    }
    assert_eq!(output, b"250 2.0.0 Ok\r\n");
}

#[tokio::test(start_paused = true)]
async fn content_that_comes_octet_by_octet_is_cut_off_and_leaves_nothing() {
    let gate = gate();
    let (last, took) = drip(&gate, "127.0.0.1", BEGIN, b"x", MINUTE).await;
    assert_eq!((last.as_str(), took), ("421 4.4.2 Too slow, closing", 5 * MINUTE));
    assert_eq!(gate.front_end.queue.counts().await.unwrap().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn content_that_keeps_the_least_rate_may_take_hours() {
    let gate = gate();
    let (mut read, mut write) = tokio::io::split(gate.connect_from("127.0.0.1"));
    write.write_all(BEGIN).await.unwrap();
    let line = [&[b'x'; 998][..], b"\r\n"].concat();
    for _ in 0..7200 {
        tokio::time::sleep(Duration::from_millis(1950)).await;
        write.write_all(&line).await.unwrap();
    }
    write.write_all(b".\r\nQUIT\r\n").await.unwrap();
    let mut output = String::new();
    read.read_to_string(&mut output).await.unwrap();
    assert!(output.contains("queued as"), "{output}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_in_content_is_told_after_five_minutes() {
    let mut client = gate().connect_from("127.0.0.1");
    let begun = Instant::now();
    client.write_all(&[BEGIN, b"Subject: x\r\n"].concat()).await.unwrap();
    let mut output = String::new();
    client.read_to_string(&mut output).await.unwrap();
    assert_eq!(begun.elapsed(), 5 * MINUTE);
    assert!(output.lines().last().unwrap().starts_with("421 4.4.2 "), "{output}");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_has_ten_minutes_and_a_client_that_may_relay_has_not() {
    let (last, took) = drip(&gate(), "192.0.2.1", b"EHLO x\r\n", b"NOOP\r\n", MINUTE).await;
    assert!(last.starts_with("421 4.7.0 Connected for too long"), "{last}");
    assert_eq!(took, 10 * MINUTE);

    let mut client = gate().connect_from("127.0.0.1");
    for _ in 0..30 {
        tokio::time::sleep(MINUTE).await;
        client.write_all(b"NOOP\r\n").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut output = vec![0; 4096];
    let read = client.read(&mut output).await.unwrap();
    assert!(output[..read].ends_with(b"250 2.0.0 Ok\r\n"));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_without_end_gives_a_stranger_no_more_time_and_does_not_hold_up_the_end() {
    let start = b"EHLO x\r\nBDAT 18446744073709551615\r\n";
    let (last, took) = drip(&gate(), "192.0.2.1", start, &[b'x'; 60_000], MINUTE).await;
    assert!(last.starts_with("421 4.7.0 Connected for too long"), "{last}");
    assert_eq!(took, 10 * MINUTE);

    let gate = gate();
    let shutdown = gate.shutdown.clone();
    tokio::spawn(async move {
        tokio::time::sleep(2 * MINUTE).await;
        shutdown.cancel();
    });
    let (last, took) = drip(&gate, "127.0.0.1", start, &[b'x'; 60_000], MINUTE).await;
    assert_eq!((last.as_str(), took), ("421 4.3.2 Shutting down, try again later", 2 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_has_waited_for_its_client_does_not_cost_the_client_its_time() {
    let gate = gate_with(
        |setup| {
            setup.listener.xclient = true;
            setup.access.trusted_proxies = vec!["10.0.0.1".parse::<IpAddr>().unwrap().into()];
        },
        When::default(),
    );
    let mut client = gate.connect_from("10.0.0.1");
    for _ in 0..3 {
        tokio::time::sleep(3 * MINUTE).await;
        client.write_all(b"NOOP\r\n").await.unwrap();
    }
    client.write_all(b"XCLIENT ADDR=192.0.2.1\r\n").await.unwrap();
    tokio::time::sleep(4 * MINUTE).await;
    client.write_all(b"EHLO x\r\nQUIT\r\n").await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.ends_with("221 2.0.0 Bye\r\n"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_replies_is_dropped() {
    let gate = gate();
    let (ours, theirs) = duplex(1024);
    let client = Client::at("127.0.0.1".parse().unwrap());
    let session = tokio::spawn(converse(theirs, client, Arc::clone(&gate.door), Arc::clone(&gate.front_end), gate.shutdown.clone()));
    let (_read, mut write) = tokio::io::split(ours);
    let writing = tokio::spawn(async move {
        // It is dropped in the middle of this.
        let _ = write.write_all(&b"HELP\r\n".repeat(10_000)).await;
    });
    let begun = Instant::now();
    session.await.unwrap();
    assert!(begun.elapsed() >= 5 * MINUTE && begun.elapsed() < 6 * MINUTE, "{:?}", begun.elapsed());
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_application_hears_when_it_has_too_many_connections() {
    let application = crate::config::Application { max_connections: Some(1), ..crate::config::Application::named("erp".into()) };
    let gate = gate();
    let sessions = Arc::new(crate::smtp::Sessions::default());
    let connect = || {
        let (ours, theirs) = duplex(1024);
        let client = Client::at("127.0.0.1".parse().unwrap());
        let mut session = Session::new(theirs, client, Arc::clone(&gate.door), Arc::clone(&gate.front_end), gate.shutdown.clone());
        session.place = sessions.enter(10).unwrap();
        session.standing.application = Some(Arc::new(application.clone()));
        tokio::spawn(session.run());
        ours
    };
    let mut first = connect();
    let mut greeting = [0; 3];
    first.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220");
    let mut refused = String::new();
    connect().read_to_string(&mut refused).await.unwrap();
    assert_eq!(refused, "421 4.7.0 Too many connections of your application, try again later\r\n");
    drop(first);
    // The session sees the end before it gives its place back.
    while sessions.count() > 0 {
        tokio::task::yield_now().await;
    }
    connect().read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220");
}
