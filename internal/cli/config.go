package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/config"
)

func (e *env) configCommand() *cli.Command {
	return &cli.Command{
		Name: "config", ArgsUsage: "check [DIR]", Usage: "check the schedules in DIR, by default " + config.DefaultDir,
		Action: func(c *cli.Context) error {
			p, err := parse(c, 0, 2)
			if err != nil {
				return err
			}
			if len(p.args) == 0 || p.args[0] != "check" {
				return usagef("config has one command: check")
			}
			dir := config.DefaultDir
			if len(p.args) > 1 {
				dir = p.args[1]
			}
			return e.checkConfig(p, dir)
		},
	}
}

// checked is what `config check -o json` prints.
type checked struct {
	OK        bool             `json:"ok"`
	Files     []string         `json:"files"`
	Schedules []string         `json:"schedules"`
	Problems  []config.Problem `json:"problems"`
}

func (e *env) checkConfig(p call, dir string) error {
	_, err := os.Stat(dir)
	var conf *config.Config
	if err == nil {
		conf, err = config.Load(dir)
	}
	result := checked{OK: err == nil, Files: []string{}, Schedules: []string{}, Problems: []config.Problem{}}
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) { // of the directory itself
		problems = config.Problems{{File: dir, Message: err.Error()}}
	}
	result.Problems = append(result.Problems, problems...)
	if conf != nil {
		result.Files = append(result.Files, conf.Files...)
		for _, s := range conf.Schedules {
			result.Schedules = append(result.Schedules, s.Name)
		}
	}
	if p.json {
		if err := e.printJSON(result); err != nil {
			return err
		}
	} else {
		for _, x := range problems {
			fmt.Fprintln(e.stdout, x.Error())
		}
	}
	if err != nil {
		return api.Errorf(api.Failed, "%s: %d problems; a daemon that runs keeps what it had", dir, len(problems))
	}
	if !p.json {
		fmt.Fprintf(e.stdout, "%s: %d files, %d schedules, no problems\n", dir, len(conf.Files), len(conf.Schedules))
	}
	return nil
}
