import json, smtplib, ssl, sys

task = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=task["ca"])
if task["tls"] == "implicit":
    server = smtplib.SMTP_SSL("127.0.0.1", task["port"], local_hostname="smtplib.example", context=context)
else:
    server = smtplib.SMTP("127.0.0.1", task["port"], local_hostname="smtplib.example")
with server:
    server.ehlo()
    if task["tls"] == "starttls":
        server.starttls(context=context)
        server.ehlo()
    if task["mechanism"]:
        server.user, server.password = task["user"], task["password"]
        server.auth(task["mechanism"], getattr(server, "auth_" + task["mechanism"].lower()))
    options = ["BODY=8BITMIME"] if task["eight_bit"] else []
    if task["smtputf8"]:
        options.append("SMTPUTF8")
    with open(task["file"], "rb") as message:
        server.sendmail(task["from"], [task["to"]], message.read(), mail_options=options)
