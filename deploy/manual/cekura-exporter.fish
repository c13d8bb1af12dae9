complete -c cekura-exporter -l config.file -d 'The configuration file' -r -F
complete -c cekura-exporter -l web.config.file -d 'TLS, headers and users, in the format of the Prometheus exporter-toolkit' -r -F
complete -c cekura-exporter -l log.format -d 'How a log line is written' -r -f -a "json\t'One flat JSON object per line'
text\t'Text for people'"
complete -c cekura-exporter -l web.listen-address -d 'Where to listen' -r -f
complete -c cekura-exporter -l web.telemetry-path -d 'The path of the metrics' -r -f
complete -c cekura-exporter -l log.level -d 'error, warn, info, debug or trace, or a tracing filter like `info,cekura_exporter::poller=debug`' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c cekura-exporter -l config.auto-reload -d 'Reload when the configuration file changes'
complete -c cekura-exporter -l web.systemd-socket -d 'Take the listeners from systemd'
complete -c cekura-exporter -l demo -d 'Run against an embedded simulated Cekura API: no configuration, no key, no network'
complete -c cekura-exporter -l config.check -d 'Validate the configuration and the files that it names'
complete -c cekura-exporter -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cekura-exporter -s V -l version -d 'Print version'
