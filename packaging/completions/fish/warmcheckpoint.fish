# fish completion for warmcheckpoint(8): the program itself knows its words; import and -o take files.
complete -c warmcheckpoint -n 'not __fish_seen_subcommand_from import' -f
complete -c warmcheckpoint -a '(warmcheckpoint __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
