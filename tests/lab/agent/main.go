package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

// Main runs one of the agent's subcommands. Those that measure something
// print one JSON object.
//
//	serve                     listen on Port
//	read ROOT [DISK...]       ReadTree
//	folios PATH               CountFolios
//	content PATH SEED SIZE    WriteContent and sync
//	dataset ROOT SEED BYTES   Dataset.Write
//	prepare-writes ROOT       PrepareScenarios
//	writes ROOT               WriteScenarios
func Main(args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("no command")
	}
	command, args := args[0], args[1:]
	if need := map[string]int{"read": 1, "folios": 1, "content": 3, "dataset": 3, "prepare-writes": 1, "writes": 1}[command]; len(args) < need {
		return fmt.Errorf("%s: too few arguments", command)
	}
	switch command {
	case "serve":
		// Its parent, busybox's init, knows only what Debian installs.
		if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
			return err
		}
		return http.ListenAndServe(fmt.Sprintf(":%d", Port), Handler())
	case "read":
		return printJSON(out)(ReadTree(args[0], args[1:]))
	case "folios":
		return printJSON(out)(CountFolios(args[0]))
	case "content":
		numbers, err := parseNumbers(args[1:])
		if err != nil {
			return err
		}
		if err := WriteContent(args[0], uint64(numbers[0]), numbers[1]); err != nil {
			return err
		}
		return syncFile(args[0])
	case "dataset":
		numbers, err := parseNumbers(args[1:])
		if err != nil {
			return err
		}
		return Dataset{Seed: uint64(numbers[0]), Bytes: numbers[1]}.Write(args[0])
	case "prepare-writes":
		return PrepareScenarios(args[0])
	case "writes":
		return WriteScenarios(args[0])
	}
	return fmt.Errorf("unknown command %q", command)
}

func printJSON(out io.Writer) func(value any, err error) error {
	return func(value any, err error) error {
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(value)
	}
}

func parseNumbers(args []string) ([]int64, error) {
	numbers := make([]int64, len(args))
	for i, arg := range args {
		n, err := strconv.ParseInt(arg, 0, 64)
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	return numbers, nil
}
