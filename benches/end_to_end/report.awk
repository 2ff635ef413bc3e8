# Medians and ratios of the runs in `results`, as a Markdown table.

function median(values, n,    i, j, swap) {
    for (i = 2; i <= n; i++) for (j = i; j > 1 && values[j - 1] > values[j]; j--) {
        swap = values[j]; values[j] = values[j - 1]; values[j - 1] = swap
    }
    return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
}

function of(scenario, name, field,    i, n, list) {
    n = count[scenario, name]
    if (!n) return 0
    for (i = 1; i <= n; i++) list[i] = value[scenario, name, i, field]
    return median(list, n)
}

function show(number, format) { return number ? sprintf(format, number) : "-" }

{
    if (!($1 in known)) { known[$1] = 1; order[++scenarios] = $1 }
    n = ++count[$1, $2]
    value[$1, $2, n, "rate"] = $3; value[$1, $2, n, "cpu"] = $4; value[$1, $2, n, "memory"] = $5
}

END {
    print "| load | no relay, messages/s | Postrider, messages/s | Postfix, messages/s | rate, ratio | Postrider, us CPU | Postfix, us CPU | CPU, ratio | Postrider, MiB | Postfix, MiB |"
    print "|---|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= scenarios; i++) {
        s = order[i]
        rate = of(s, "postrider", "rate"); peer = of(s, "postfix", "rate")
        cpu = of(s, "postrider", "cpu"); peer_cpu = of(s, "postfix", "cpu")
        printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", s, show(of(s, "none", "rate"), "%.0f"), show(rate, "%.0f"),
            show(peer, "%.0f"), (rate && peer) ? sprintf("%.1f x", rate / peer) : "-", show(cpu, "%.0f"), show(peer_cpu, "%.0f"),
            (cpu && peer_cpu) ? sprintf("1/%.1f", peer_cpu / cpu) : "-", show(of(s, "postrider", "memory"), "%.0f"), show(of(s, "postfix", "memory"), "%.0f")
    }
    print ""
    base = of("4k-50", "postrider", "rate"); slow = of("slow-fsync", "postrider", "rate")
    if (base && slow) printf "- An fsync that takes 3 ms more leaves Postrider %.0f %% of its rate.\n", 100 * slow / base
    base = of("4k-50", "postrider", "cpu"); ses = of("ses", "postrider", "cpu")
    if (base && ses) printf "- A message to the SES API costs %.1f times the CPU of one to a smart host.\n", ses / base
}
