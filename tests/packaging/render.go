// Renders the templates of a Helm chart: Go's own text/template with the functions of sprig and those that Helm adds.
//
// It is not Helm: it reads no subcharts, no values files and no .helmignore, and checks nothing. What it renders, Helm renders
// so too, as long as the templates keep to what stands below. What is missing in the values is a failure, as with `--strict`.
//
//	render CHART < '{"Values": …, "Chart": …, "Release": …}'     prints {"file": "text", …}
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("name the chart's folder")
	}
	var data map[string]interface{}
	decoder := json.NewDecoder(os.Stdin)
	// Numbers stay as they are written: 9090 is not 9090.0.
	decoder.UseNumber()
	if err := decoder.Decode(&data); err != nil {
		return err
	}
	whole(data)
	chart := template.New("chart").Option("missingkey=error")
	functions := sprig.TxtFuncMap()
	// Helm has neither of these.
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["include"] = func(name string, data interface{}) (string, error) {
		var out strings.Builder
		err := chart.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	functions["required"] = func(why string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, errors.New(why)
		}
		return value, nil
	}
	functions["toYaml"] = func(value interface{}) (string, error) {
		text, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	chart.Funcs(functions)

	files, err := filepath.Glob(filepath.Join(os.Args[1], "templates", "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if _, err := chart.New(filepath.Base(file)).Parse(string(text)); err != nil {
			return err
		}
	}
	rendered := map[string]string{}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out strings.Builder
		if err := chart.ExecuteTemplate(&out, name, data); err != nil {
			return err
		}
		rendered[name] = out.String()
	}
	return json.NewEncoder(os.Stdout).Encode(rendered)
}

// Makes whole numbers of those that are.
func whole(value interface{}) interface{} {
	switch value := value.(type) {
	case map[string]interface{}:
		for name, member := range value {
			value[name] = whole(member)
		}
	case []interface{}:
		for at, item := range value {
			value[at] = whole(item)
		}
	case json.Number:
		if number, err := value.Int64(); err == nil {
			return number
		}
		number, _ := value.Float64()
		return number
	}
	return value
}
