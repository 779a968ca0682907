# fish completion for warmreboot(8): the program itself knows its words.
complete -c warmreboot -f -a '(warmreboot __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
